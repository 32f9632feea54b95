// Package order is what the shop's parts say to each other.
package order

import "time"

// The states of an order. It is open until inventory has answered, and changes once.
const (
	Open      = "open"
	Confirmed = "confirmed"
	Rejected  = "rejected"
)

// An Order is one customer's wish for some of one item.
type Order struct {
	ID      int64    `json:"id"`
	Item    string   `json:"item"`
	Count   int      `json:"count"`
	State   string   `json:"state"`
	History []Change `json:"history"` // every state it was in, the present one last
}

// A Change is when an order came into a state.
type Change struct {
	State string    `json:"state"`
	At    time.Time `json:"at"`
}

// Enter puts the order into a state.
func (o *Order) Enter(state string) {
	o.State = state
	o.History = append(o.History, Change{state, time.Now().UTC()})
}

// Stock is how much of an item there is to sell.
type Stock struct {
	Item  string `json:"item"`
	Count int    `json:"count"`
}
