// Command customer tries the shop: it places many orders at once for items there are too few of, waits until each is
// confirmed or rejected, and checks that stock adds up and that no order was lost or closed twice. When the shop is
// away, even killed, it tries again with the same Idempotency-Key, as a customer should.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/loam-run/loam/examples/shop/order"
)

func main() {
	var c customer
	flag.StringVar(&c.url, "url", "http://127.0.0.1:8080", "where the shop is")
	flag.IntVar(&c.orders, "orders", 1000, "how many orders to place")
	flag.IntVar(&c.parallel, "parallel", 16, "how many at a time")
	flag.IntVar(&c.items, "items", 5, "how many different items")
	flag.DurationVar(&c.patience, "patience", 2*time.Minute, "how long to wait for the shop, all in all")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	err := c.shop(ctx, os.Stdout)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "customer:", err)
		os.Exit(1)
	}
}

type customer struct {
	url                     string
	orders, parallel, items int
	patience                time.Duration

	client  http.Client
	retries atomic.Int64
}

// each order is for 1 to maxCount of an item
const maxCount = 5

func (c *customer) shop(ctx context.Context, out io.Writer) error {
	c.client = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: c.parallel}}
	visit := strings.ToLower(rand.Text()[:6]) // items of this visit's own, so that visits do not mix
	// Two thirds of what will be asked for, so that a good part of the orders must be rejected.
	opening := c.orders * (1 + maxCount) / 2 / c.items * 2 / 3
	stock := map[string]int{}
	for i := range c.items {
		item := fmt.Sprintf("%s-%s", []string{"apple", "pear", "plum", "quince", "medlar"}[i%5], visit+fmt.Sprint(i))
		if err := c.do(ctx, http.MethodPut, "/stock/"+item, "", order.Stock{Count: opening}, nil); err != nil {
			return err
		}
		stock[item] = opening
	}
	items := slices.Sorted(maps.Keys(stock))

	start := time.Now()
	placed := make([]order.Order, c.orders)
	bar := newBar(out, "placing", c.orders)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.parallel)
	for i := range placed {
		g.Go(func() error {
			defer bar.add(1)
			want := order.Order{Item: items[mrand.IntN(len(items))], Count: 1 + mrand.IntN(maxCount)}
			return c.do(gctx, http.MethodPost, "/orders", rand.Text(), want, &placed[i])
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	bar.end()
	placing := time.Since(start)

	bar = newBar(out, "closing", c.orders)
	closed := make([]order.Order, c.orders)
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(c.parallel)
	for i := range placed {
		g.Go(func() error {
			defer bar.add(1)
			return c.await(gctx, placed[i].ID, &closed[i])
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	bar.end()
	return c.judge(ctx, out, placed, closed, stock, placing, time.Since(start))
}

// await asks for an order until it is closed.
func (c *customer) await(ctx context.Context, id int64, o *order.Order) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		*o = order.Order{}
		if err := c.do(ctx, http.MethodGet, fmt.Sprintf("/orders/%d", id), "", nil, o); err != nil {
			return err
		}
		if o.State != order.Open {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("order %d is still open: %w", id, ctx.Err())
		case <-tick.C:
		}
	}
}

// judge compares what was bought with what is gone.
func (c *customer) judge(ctx context.Context, out io.Writer, placed, closed []order.Order, stock map[string]int, placing, whole time.Duration) error {
	var wrong []error
	ids := map[int64]bool{}
	states, bought := map[string]int{}, map[string]int{}
	for i, o := range closed {
		if ids[o.ID] {
			wrong = append(wrong, fmt.Errorf("order %d was given twice", o.ID))
		}
		ids[o.ID] = true
		if o.ID != placed[i].ID || o.Item != placed[i].Item || o.Count != placed[i].Count {
			wrong = append(wrong, fmt.Errorf("order %d came back as %+v", placed[i].ID, o))
		}
		if len(o.History) != 2 || o.History[0].State != order.Open || o.History[1].State != o.State {
			wrong = append(wrong, fmt.Errorf("order %d went through %v, not from open to %s once", o.ID, o.History, o.State))
		}
		states[o.State]++
		if o.State == order.Confirmed {
			bought[o.Item] += o.Count
		}
	}
	if n := states[order.Confirmed] + states[order.Rejected]; n != c.orders {
		wrong = append(wrong, fmt.Errorf("%d orders are closed, of %d", n, c.orders))
	}
	for item, opening := range stock {
		var left order.Stock
		if err := c.do(ctx, http.MethodGet, "/stock/"+item, "", nil, &left); err != nil {
			return err
		}
		if left.Count < 0 || left.Count+bought[item] != opening {
			wrong = append(wrong, fmt.Errorf("%s: %d in stock and %d bought, of %d", item, left.Count, bought[item], opening))
		}
	}
	fmt.Fprintf(out, "%d orders: %d confirmed, %d rejected; placed in %s, all closed after %s; %d requests sent again\n",
		c.orders, states[order.Confirmed], states[order.Rejected], placing.Round(time.Millisecond), whole.Round(time.Millisecond), c.retries.Load())
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Fprintln(out, "stock adds up; no order was lost or closed twice")
	return nil
}

// do sends a request until it is answered with a success; what can never succeed is an error at once.
func (c *customer) do(ctx context.Context, method, path, once string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		err := c.try(ctx, method, path, once, body, out)
		var final permanent
		if err == nil || errors.As(err, &final) {
			return err
		}
		c.retries.Add(1)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s %s: gave up: %w", method, c.url+path, err)
		case <-time.After(wait):
		}
	}
}

type permanent struct{ error }

func (c *customer) try(ctx context.Context, method, path, once string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return permanent{err}
	}
	if once != "" {
		req.Header.Set("Idempotency-Key", once)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 400 && res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests:
		return permanent{fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)}
	case res.StatusCode >= 300:
		return fmt.Errorf("%s: %s", res.Status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// A bar shows progress on a terminal, and is silent elsewhere.
type bar struct {
	out   io.Writer
	what  string
	total int

	mu   sync.Mutex
	done int
}

func newBar(out io.Writer, what string, total int) *bar {
	if f, ok := out.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		out = nil
	}
	return &bar{out: out, what: what, total: total}
}

func (b *bar) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done += n
	if b.out != nil {
		const width = 40
		full := width * b.done / b.total
		fmt.Fprintf(b.out, "\r%s [%s%s] %d/%d", b.what, strings.Repeat("█", full), strings.Repeat("·", width-full), b.done, b.total)
	}
}

func (b *bar) end() {
	if b.out != nil {
		fmt.Fprintln(b.out)
	}
}
