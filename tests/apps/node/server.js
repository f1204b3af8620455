// A server that says who it is.
const ms = require("ms");
require("http")
  .createServer((request, response) => response.end(`node ${process.getuid()} ${ms("2 days")}\n`))
  .listen(process.env.PORT);
