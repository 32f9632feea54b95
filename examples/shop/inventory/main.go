// Command inventory is the shop's stock function: it locks what an order asks for, or rejects the order. Stock never
// falls below zero, and an order that is announced twice is counted once.
package main

import (
	"strconv"
	"strings"

	"github.com/loam-run/loam/examples/shop/order"
	loam "github.com/loam-run/loam/sdk/go"
)

// opening is what an item has in stock before anybody said otherwise.
const opening = 100

func init() {
	loam.Handle("GET /stock", list)
	loam.Handle("GET /stock/{item}", get)
	loam.Handle("PUT /stock/{item}", put)
	loam.HandleEvent("/events/order-created", reserve)
}

func main() {}

// reserve takes an order's count off the stock, remembers that it did, and says so: all in one transaction.
func reserve(_ *loam.Request, e loam.Event) error {
	var o order.Order
	if err := e.JSON(&o); err != nil {
		return err
	}
	for {
		done, err := tryReserve(o)
		if done || err != nil && !loam.IsConflict(err) {
			return err
		}
		// Another order took from the same stock meanwhile: look again.
	}
}

func tryReserve(o order.Order) (done bool, err error) {
	mark := "reservation/" + strconv.FormatInt(o.ID, 10)
	items, err := loam.State("").GetMany("stock/"+o.Item, mark)
	if err != nil {
		return false, err
	}
	if items[1].Exists() {
		return true, nil
	}
	stock, err := count(items[0])
	if err != nil {
		return false, err
	}
	tx := loam.State("").Begin()
	topic := "StockRejected"
	if stock >= o.Count {
		topic = "StockLocked"
		tx.PutJSON("stock/"+o.Item, stock-o.Count, loam.IfMatch(items[0].ETag))
	}
	tx.PutJSON(mark, topic, loam.IfAbsent())
	tx.Publish("", topic, o)
	err = tx.Commit()
	return err == nil, err
}

func count(item loam.Item) (n int, err error) {
	if !item.Exists() {
		return opening, nil
	}
	return n, item.JSON(&n)
}

func get(r *loam.Request) (*loam.Response, error) {
	items, err := loam.State("").GetMany("stock/" + r.PathValue("item"))
	if err != nil {
		return nil, err
	}
	n, err := count(items[0])
	if err != nil {
		return nil, err
	}
	return loam.JSON(200, order.Stock{Item: r.PathValue("item"), Count: n}), nil
}

func put(r *loam.Request) (*loam.Response, error) {
	var s order.Stock
	if err := r.JSON(&s); err != nil {
		return nil, err
	}
	if s.Count < 0 {
		return nil, loam.Errorf(loam.InvalidArgument, `stock looks like {"count":10}, and is not negative`)
	}
	s.Item = r.PathValue("item")
	if _, err := loam.State("").PutJSON("stock/"+s.Item, s.Count); err != nil {
		return nil, err
	}
	return loam.JSON(200, s), nil
}

func list(*loam.Request) (*loam.Response, error) {
	items, err := loam.State("").List("stock/", "", 100)
	if err != nil {
		return nil, err
	}
	all := []order.Stock{}
	for _, it := range items {
		n, err := count(it)
		if err != nil {
			return nil, err
		}
		all = append(all, order.Stock{Item: strings.TrimPrefix(it.Key, "stock/"), Count: n})
	}
	return loam.JSON(200, all), nil
}
