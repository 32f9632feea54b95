//go:build wasip1

// Command function is the order desk as a function: the same business as ../dapr, in an instance of its own for each
// request.
package main

import (
	loam "github.com/loam-run/loam/sdk/go"
)

const name = "function-desk"

// An order is what is taken, kept and told of.
type order struct {
	ID     string `json:"id"`
	Item   string `json:"item"`
	Count  int    `json:"count"`
	Desk   string `json:"desk"`   // that took it
	Status string `json:"status"` // open or confirmed
}

func init() {
	loam.Handle("POST /orders", take)
	loam.Handle("GET /orders/{id}", func(r *loam.Request) (*loam.Response, error) { return show("order/" + r.PathValue("id")) })
	loam.Handle("GET /seen/{id}", func(r *loam.Request) (*loam.Response, error) { return show("seen/" + r.PathValue("id")) })
	loam.Handle("GET /ask/{desk}/{id}", ask)
	loam.HandleEvent("/events/orders", told)
}

func main() {}

func take(r *loam.Request) (*loam.Response, error) {
	var o order
	if err := r.JSON(&o); err != nil {
		return nil, err
	}
	if o.ID == "" || o.Item == "" || o.Count < 1 {
		return nil, loam.Errorf(loam.InvalidArgument, `an order looks like {"id":"a1","item":"apple","count":2}`)
	}
	o.Desk, o.Status = name, "open"
	tx := loam.State("statestore").Begin() // the order and the event that tells of it are there together, or neither is
	tx.PutJSON(name+"/order/"+o.ID, o, loam.IfAbsent())
	tx.Publish("pubsub", "orders", o)
	if err := tx.Commit(); err != nil {
		return nil, err // of an order that is there: a conflict
	}
	return loam.JSON(200, o), nil
}

// told is an event: an order was taken somewhere. This desk's own is confirmed by it.
func told(_ *loam.Request, e loam.Event) error {
	var o order
	if err := e.JSON(&o); err != nil {
		return err
	}
	tx := loam.State("statestore").Begin()
	tx.PutJSON(name+"/seen/"+o.ID, map[string]string{"desk": o.Desk})
	if o.Desk == name {
		o.Status = "confirmed"
		tx.PutJSON(name+"/order/"+o.ID, o)
	}
	return tx.Commit()
}

func show(key string) (*loam.Response, error) {
	item, err := loam.State("statestore").Get(name + "/" + key)
	if err != nil {
		return nil, err
	}
	if !item.Exists() {
		return nil, loam.Errorf(loam.NotFound, "no such order")
	}
	return loam.Bytes(200, "application/json", item.Value), nil
}

func ask(r *loam.Request) (*loam.Response, error) {
	return loam.Invoke(r.PathValue("desk"), "/orders/"+r.PathValue("id"), loam.Outgoing{})
}
