//go:build sdk

package sdk

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/wasm"
)

// The shop's inventory does the same in Go and in Rust: one line of shop.yaml chooses.
func TestInventory(t *testing.T) {
	created := func(id int, item string, count int) exchange {
		return exchange{
			method: "POST", target: "/events/order-created", status: 204,
			body:   fmt.Sprintf(`{"id":%d,"item":%q,"count":%d,"state":"open","history":[{"state":"open","at":"2026-01-02T03:04:05.678Z"}]}`, id, item, count),
			header: []string{"ce-specversion", "1.0", "ce-id", fmt.Sprint(id), "ce-source", "orders", "ce-type", "OrderCreated", "content-type", "application/json"},
		}
	}
	get := func(target string, status int, want string) exchange {
		return exchange{method: "GET", target: target, status: status, want: want}
	}
	put := func(item, body string, status int, want string) exchange {
		return exchange{method: "PUT", target: "/stock/" + item, body: body, status: status, want: want}
	}
	for _, folder := range []string{"inventory", "inventory-rust"} {
		t.Run(folder, func(t *testing.T) {
			w := newWorld(t, compiled(t, "../../examples/shop/"+folder), wasm.Config{Isolation: wasm.IsolationShared}, map[string][]string{
				"state": {"stock/*", "reservation/*"}, "pubsub": {"StockLocked", "StockRejected"},
			})
			broken := created(9, "apple", 1)
			broken.body, broken.status, broken.want = "no order", 400, ""
			for _, e := range []exchange{
				get("/stock", 200, "[]\n"),
				get("/stock/apple", 200, `{"item":"apple","count":100}`+"\n"),
				put("apple", `{"count":10}`, 200, `{"item":"apple","count":10}`+"\n"),
				put("p%C3%A4r%22", `{"count": 0, "item": "ignored"}`, 200, `{"item":"pär\"","count":0}`+"\n"),
				put("apple", `{"count":-1}`, 400, `{"code":"invalid argument","message":"stock looks like {\"count\":10}, and is not negative"}`+"\n"),
				put("apple", `{"count":`, 400, "the request's body is not the JSON expected"),
				get("/stock", 200, `[{"item":"apple","count":10},{"item":"pär\"","count":0}]`+"\n"),
				created(1, "apple", 4), // locked
				created(1, "apple", 4), // it came before
				created(2, "apple", 7), // rejected
				created(3, "apple", 6), // locked, the last ones
				created(4, "pear", 1),  // of the opening stock
				broken,
				get("/stock/apple", 200, `{"item":"apple","count":0}`+"\n"),
				get("/stock/pear", 200, `{"item":"pear","count":99}`+"\n"),
			} {
				w.check(t, e)
			}
			want := []string{"StockLocked 1 apple", "StockRejected 2 apple", "StockLocked 3 apple", "StockLocked 4 pear"}
			if got := w.published(t); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("published %v, want %v", got, want)
			}

			// Orders that come at once: nothing is sold twice, and nothing is held back.
			w.check(t, put("plum", `{"count":30}`, 200, `{"item":"plum","count":30}`+"\n"))
			var ordering sync.WaitGroup
			for i := range 40 {
				ordering.Go(func() { w.check(t, created(100+i, "plum", 1)) })
			}
			ordering.Wait()
			w.check(t, get("/stock/plum", 200, `{"item":"plum","count":0}`+"\n"))
			marks := map[string]int{}
			w.mu.Lock()
			for _, a := range w.applied {
				for _, op := range a.Ops {
					if strings.HasPrefix(op.Key, "reservation/1") && len(op.Key) == len("reservation/100") {
						marks[op.Key+string(op.Value)]++
					}
				}
			}
			w.mu.Unlock()
			locked, rejected := 0, 0
			for mark := range marks {
				if strings.HasSuffix(mark, `"StockLocked"`) {
					locked++
				} else {
					rejected++
				}
			}
			if locked != 30 || rejected != 10 {
				t.Errorf("%d orders locked and %d rejected, want 30 and 10", locked, rejected)
			}
		})
	}
}

// published are the events that were committed: their topics, and what of which order.
func (w *world) published(t *testing.T) (events []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.applied {
		for _, e := range a.Events {
			var id int
			if _, err := fmt.Sscanf(string(e.Data), `{"id":%d,`, &id); err != nil || e.ContentType != "application/json" || !strings.Contains(string(e.Data), `"at":"2026-01-02T03:04:05.678Z"`) {
				t.Errorf("%s: %s %s (%v)", e.Topic, e.ContentType, e.Data, err)
			}
			_, item, _ := strings.Cut(string(e.Data), `"item":"`)
			item, _, _ = strings.Cut(item, `"`)
			events = append(events, fmt.Sprintf("%s %d %s", e.Topic, id, item))
		}
	}
	return events
}

// commit notes a transaction that came to be.
func (w *world) commit(in []byte) {
	var a api.StateApplyRequest
	if a.ParseProto(bytes.Clone(in)) == nil { // the host may use its buffer again
		w.applied = append(w.applied, a)
	}
}
