// Command mailer is an ordinary HTTP program: it knows nothing of Wasm or of Loam, is told of closed orders by POST, and
// would send mail to customers. This one keeps the mails and shows them.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"

	"github.com/loam-run/loam/examples/shop/order"
)

// outbox holds the newest mails. An event may be delivered again, so each order is written to once.
type outbox struct {
	mu    sync.Mutex
	mails []string
	wrote map[int64]bool
}

func main() {
	o := outbox{wrote: map[int64]bool{}}
	http.HandleFunc("POST /events/order-closed", o.receive)
	http.HandleFunc("GET /mails", o.list)
	address := "127.0.0.1:" + os.Getenv("PORT")
	log.Printf("mailer listens on %s", address)
	log.Fatal(http.ListenAndServe(address, nil))
}

func (o *outbox) receive(w http.ResponseWriter, r *http.Request) {
	var event struct{ Data order.Order }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&event); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	mail := fmt.Sprintf("order %d, %d × %s: %s", event.Data.ID, event.Data.Count, event.Data.Item, event.Data.State)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wrote[event.Data.ID] {
		return
	}
	o.wrote[event.Data.ID] = true
	if o.mails = append(o.mails, mail); len(o.mails) > 1000 {
		o.mails = o.mails[1:]
	}
	log.Print("mail: " + mail)
}

func (o *outbox) list(w http.ResponseWriter, _ *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(o.mails[max(0, len(o.mails)-20):]); err != nil {
		log.Print(err)
	}
}
