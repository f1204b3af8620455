"""An application that says who it is."""
import os

import bottle

app = bottle.Bottle()


@app.get("/")
def index():
    return f"python {os.environ.get('HOME')} {bottle.__version__}\n"
