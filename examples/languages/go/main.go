// Command go is the function of this example in Go: it calls everything that there is to call. Its twins in the other
// folders do the same, line by line.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	loam "github.com/loam-run/loam/sdk/go"
)

func init() {
	loam.Handle("GET /hello/{name}", hello)
	loam.Handle("GET /visits", visits)
	loam.Handle("PUT /notes/{id}", putNote)
	loam.Handle("GET /notes/{id}", getNote)
	loam.Handle("DELETE /notes/{id}", deleteNote)
	loam.HandleEvent("/events/notes", noted)
	loam.Handle("POST /announce/{topic}", announce)
	loam.Handle("POST /locks/{name}/{owner}", takeLock)
	loam.Handle("PUT /locks/{name}/{owner}", renewLock)
	loam.Handle("DELETE /locks/{name}/{owner}", freeLock)
	loam.Handle("POST /tickets/{count}", tickets)
	loam.Handle("GET /settings", settings)
	loam.Handle("GET /secrets/{name}", secret)
	loam.Handle("POST /ask/{target}/{path...}", ask)
	loam.Handle("GET /fetch", fetch)
	loam.Handle("/echo/", echo)
	loam.Handle("GET /random", random)
	loam.Handle("GET /broken", broken)
	loam.Handle("GET /crash", crash)
}

func main() {}

// hello counts how often it greeted whom. Two requests that greet the same name both read its ETag; the slower one
// looks again.
func hello(r *loam.Request) (*loam.Response, error) {
	name := r.PathValue("name")
	greeting := r.Query().Get("greeting")
	if greeting == "" {
		var err error
		if greeting, err = loam.Config("").Get("greeting"); err != nil {
			return nil, err
		}
	}
	for {
		item, err := loam.State("").Get("visits/" + name)
		if err != nil && !loam.IsNotFound(err) {
			return nil, err
		}
		n, _ := strconv.Atoi(string(item.Value)) // none yet is 0
		n++
		_, err = loam.State("").Put("visits/"+name, []byte(strconv.Itoa(n)), loam.IfMatch(item.ETag))
		if loam.IsConflict(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		slog.Info("greeted", "name", name)
		return loam.Text(200, fmt.Sprintf("%s, %s! Visit %d.\n", greeting, name, n)), nil
	}
}

func visits(*loam.Request) (*loam.Response, error) {
	items, err := loam.State("").List("visits/", "", 10)
	if err != nil {
		return nil, err
	}
	var page strings.Builder
	for _, it := range items {
		fmt.Fprintf(&page, "%s: %s\n", strings.TrimPrefix(it.Key, "visits/"), it.Value)
	}
	return loam.HTML(200, page.String()), nil
}

// putNote stores a note and says so, both or neither; a note is written once.
func putNote(r *loam.Request) (*loam.Response, error) {
	id := r.PathValue("id")
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return nil, loam.Errorf(loam.InvalidArgument, "a note says something, even <this> \"one\"")
	}
	tx := loam.State("").Begin()
	tx.Put("notes/"+id, body, loam.IfAbsent(), loam.TTL(time.Hour))
	tx.Publish("", "notes", body, loam.WithSubject(id), loam.WithAttribute("size", strconv.Itoa(len(body))))
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	resp := loam.Text(201, "")
	resp.Header.Set("Location", "/notes/"+id)
	return resp, nil
}

func getNote(r *loam.Request) (*loam.Response, error) {
	item, err := loam.State("").Get("notes/" + r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return loam.Bytes(200, "application/octet-stream", item.Value), nil
}

func deleteNote(r *loam.Request) (*loam.Response, error) {
	return nil, loam.State("").Delete("notes/" + r.PathValue("id"))
}

// noted remembers what it was told. What no one will ever read is dropped; for some it has no time yet.
func noted(_ *loam.Request, e loam.Event) error {
	switch string(e.Data) {
	case "nonsense":
		return fmt.Errorf("%w: it is nonsense", loam.ErrDrop)
	case "later":
		return loam.Errorf(loam.Unavailable, "not now")
	case "missing":
		_, err := loam.State("").Get("notes/missing")
		return err
	}
	_, err := loam.State("").Put("seen/"+e.ID, fmt.Appendf(nil, "%s %s %s %s %s %s %d", e.Type, e.Source, e.Topic, e.Subject, e.ContentType, e.Attributes["size"], len(e.Data)))
	return err
}

func announce(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	return nil, loam.Pubsub("").Publish(r.PathValue("topic"), string(body), loam.WithID("one"), loam.WithType("Announced"))
}

func takeLock(r *loam.Request) (*loam.Response, error) {
	ok, err := loam.Lock("").Try(r.PathValue("name"), r.PathValue("owner"), time.Minute)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, loam.Errorf(loam.FailedPrecondition, "another holds it")
	}
	return loam.Text(200, "yours\n"), nil
}

func renewLock(r *loam.Request) (*loam.Response, error) {
	return nil, loam.Lock("").Renew(r.PathValue("name"), r.PathValue("owner"), time.Minute)
}

func freeLock(r *loam.Request) (*loam.Response, error) {
	return nil, loam.Lock("").Unlock(r.PathValue("name"), r.PathValue("owner"))
}

func tickets(r *loam.Request) (*loam.Response, error) {
	count, err := strconv.ParseInt(r.PathValue("count"), 10, 64)
	if err != nil {
		return nil, loam.Errorf(loam.InvalidArgument, "how many?")
	}
	first, err := loam.Sequence("").NextN("tickets", count)
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%d\n", first)), nil
}

func settings(*loam.Request) (*loam.Response, error) {
	items, err := loam.Config("").GetMany()
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, it := range items {
		fmt.Fprintf(&list, "%s=%s\n", it.Key, it.Value)
	}
	return loam.Text(200, list.String()), nil
}

// secret tells how long a secret is, and never what.
func secret(r *loam.Request) (*loam.Response, error) {
	value, err := loam.Secret("").Get(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%d bytes\n", len(value))), nil
}

// ask hands a request on to another function.
func ask(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	o := loam.Outgoing{Body: body, Timeout: time.Second}
	o.Header.Add("X-Asked-By", r.ID)
	resp, err := loam.Invoke(r.PathValue("target"), "/"+r.PathValue("path")+"?"+r.RawQuery, o)
	if err != nil {
		return nil, err
	}
	return loam.Bytes(resp.Status, resp.Header.Get("content-type"), resp.Body), nil
}

func fetch(r *loam.Request) (*loam.Response, error) {
	resp, err := loam.Fetch(r.Query().Get("url"), loam.Outgoing{})
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%d %s", resp.Status, resp.Body)), nil
}

// echo says what came.
func echo(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	resp := loam.Bytes(200, r.Header.Get("content-type"), body)
	resp.Header.Add("X-Echo", fmt.Sprintf("%s %s %s %s", r.Method, r.Host, r.Path, r.RawQuery))
	resp.Header.Add("X-Fields", strconv.Itoa(len(r.Header)))
	resp.Header.Add("X-Late", strconv.FormatBool(!r.Deadline.IsZero() && time.Now().After(r.Deadline)))
	return resp, nil
}

// random is another number for each request, though all begin from the same memory.
func random(*loam.Request) (*loam.Response, error) {
	return loam.Text(200, strconv.FormatUint(rand.Uint64(), 10)), nil
}

func broken(*loam.Request) (*loam.Response, error) {
	return nil, errors.New("this stays in the log")
}

func crash(*loam.Request) (*loam.Response, error) {
	panic("this too")
}
