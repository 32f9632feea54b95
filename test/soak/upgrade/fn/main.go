// Command fn is the function of the soak: it writes state, publishes, and sees each event once.
package main

import (
	"time"

	loam "github.com/loam-run/loam/sdk/go"
)

func init() {
	loam.Handle("POST /fn/{id}", order)
	loam.Handle("POST /fn/{id}/{wait}", order)
	loam.HandleEvent("/events/order", pass)
}

func main() {}

// order writes state, waits, and publishes: two calls, between which the process may have been replaced.
func order(r *loam.Request) (*loam.Response, error) {
	id := r.PathValue("id")
	if _, err := loam.State("").Put("order/"+id, []byte(id), loam.IfAbsent()); err != nil {
		return nil, err
	}
	if wait := r.PathValue("wait"); wait != "" {
		d, err := time.ParseDuration(wait)
		if err != nil {
			return nil, err
		}
		time.Sleep(d)
	}
	item, err := loam.State("").Get("order/" + id)
	if err != nil {
		return nil, err
	}
	if err := loam.Pubsub("").Publish("orders", id, loam.WithID(id)); err != nil {
		return nil, err
	}
	return loam.Text(200, string(item.Value)), nil
}

// pass marks an event and passes it on. One that is marked already has been delivered twice, which it tells.
func pass(_ *loam.Request, e loam.Event) error {
	_, err := loam.State("").Put("seen/"+e.ID, []byte("1"), loam.IfAbsent())
	if loam.CodeOf(err) == loam.AlreadyExists || loam.IsConflict(err) {
		return loam.Pubsub("").Publish("done", "twice", loam.WithID(e.ID))
	}
	if err != nil {
		return err
	}
	return loam.Pubsub("").Publish("done", "once", loam.WithID(e.ID))
}
