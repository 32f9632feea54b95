// Command orders is the shop's order function: it takes orders, keeps them, and closes them when inventory has
// answered. An order and the event that tells of it are one transaction, so neither is ever there without the other.
package main

import (
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/loam-run/loam/examples/shop/order"
	loam "github.com/loam-run/loam/sdk/go"
)

//go:embed page.html
var page string

func init() {
	loam.Handle("GET /", home)
	loam.Handle("POST /orders", create)
	loam.Handle("GET /orders", list)
	loam.Handle("GET /orders/{id}", get)
	loam.HandleEvent("/events/stock-locked", func(_ *loam.Request, e loam.Event) error { return closeOrder(e, order.Confirmed) })
	loam.HandleEvent("/events/stock-rejected", func(_ *loam.Request, e loam.Event) error { return closeOrder(e, order.Rejected) })
}

func main() {}

func home(r *loam.Request) (*loam.Response, error) {
	if r.Path != "/" {
		return nil, loam.Errorf(loam.NotFound, "no page %s", r.Path)
	}
	return loam.HTML(200, page), nil
}

// create stores an order and publishes OrderCreated. A customer that does not know whether its order came through sends
// it again with the same Idempotency-Key and gets the first one back.
func create(r *loam.Request) (*loam.Response, error) {
	var o order.Order
	if err := r.JSON(&o); err != nil {
		return nil, err
	}
	if o.Item == "" || o.Count < 1 || o.Count > 1000 {
		return nil, loam.Errorf(loam.InvalidArgument, `an order looks like {"item":"apple","count":1}, with a count from 1 to 1000`)
	}
	id, err := loam.Sequence("").Next("orders")
	if err != nil {
		return nil, err
	}
	o = order.Order{ID: id, Item: o.Item, Count: o.Count}
	o.Enter(order.Open)
	tx := loam.State("").Begin()
	tx.PutJSON(key(id), o, loam.IfAbsent())
	once := r.Header.Get("Idempotency-Key")
	if once != "" {
		tx.Put("request/"+once, []byte(strconv.FormatInt(id, 10)), loam.IfAbsent(), loam.TTL(24*time.Hour))
	}
	tx.Publish("", "OrderCreated", o)
	err = tx.Commit()
	if once != "" && loam.IsConflict(err) {
		first, err := loam.State("").Get("request/" + once)
		if err != nil {
			return nil, err
		}
		return find(string(first.Value), 200)
	}
	if err != nil {
		return nil, err
	}
	return loam.JSON(201, o), nil
}

func get(r *loam.Request) (*loam.Response, error) { return find(r.PathValue("id"), 200) }

func find(id string, status int) (*loam.Response, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil, loam.Errorf(loam.NotFound, "no order %q", id)
	}
	item, err := loam.State("").Get(key(n))
	if err != nil {
		return nil, err
	}
	return loam.Bytes(status, "application/json", item.Value), nil
}

// list answers the newest orders; ?before=ID those older than that one.
func list(r *loam.Request) (*loam.Response, error) {
	after := ""
	if before, err := strconv.ParseInt(r.Query().Get("before"), 10, 64); err == nil {
		after = key(before)
	}
	items, err := loam.State("").List("order/", after, 200)
	if err != nil {
		return nil, err
	}
	body := []byte{'['}
	for i, it := range items {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, it.Value...)
	}
	return loam.Bytes(200, "application/json", append(body, ']')), nil
}

// closeOrder gives an order its last state and publishes OrderClosed. An event that comes again finds it done.
func closeOrder(e loam.Event, state string) error {
	var o order.Order
	if err := e.JSON(&o); err != nil {
		return err
	}
	item, err := loam.State("").Get(key(o.ID))
	if err != nil {
		return err
	}
	if err := item.JSON(&o); err != nil {
		return err
	}
	if o.State != order.Open {
		return nil
	}
	o.Enter(state)
	tx := loam.State("").Begin()
	tx.PutJSON(key(o.ID), o, loam.IfMatch(item.ETag))
	tx.Publish("", "OrderClosed", o)
	return tx.Commit()
}

// key counts downwards, so that a list begins with the newest order.
func key(id int64) string { return fmt.Sprintf("order/%012d", 999_999_999_999-id) }
