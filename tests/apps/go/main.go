// A server that says who it is.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/google/uuid"
)

var version = "unknown"

func main() {
	id := uuid.New()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "go %s %d %v\n", version, os.Getuid(), id != uuid.Nil)
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
