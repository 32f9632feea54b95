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
	loam.Handle("PUT /files/{name...}", putFile)
	loam.Handle("POST /files/{name...}", appendFile)
	loam.Handle("GET /files/{name...}", getFile)
	loam.Handle("DELETE /files/{name...}", deleteFile)
	loam.Handle("GET /folder", folder)
	loam.Handle("POST /seal/{key}", seal)
	loam.Handle("POST /cipher/{key}", encrypt)
	loam.Handle("POST /sign/{key}", sign)
	loam.Handle("GET /keys/{key}", publicKey)
	loam.Handle("POST /bind/{operation}", bind)
	loam.Handle("POST /jobs/{name}", schedule)
	loam.Handle("GET /jobs/{name}", getJob)
	loam.Handle("DELETE /jobs/{name}", deleteJob)
	loam.HandleJob("{name}", work)
	loam.Handle("POST /tick", tick)
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

func putFile(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	etag, err := loam.File("").Put(r.PathValue("name"), body, loam.WithFileType(r.Header.Get("content-type")), loam.WithMetadata("By", "tour"))
	if err != nil {
		return nil, err
	}
	return loam.Text(201, etag+"\n"), nil
}

// appendFile adds to the end of a file, wherever that is.
func appendFile(r *loam.Request) (*loam.Response, error) {
	name := r.PathValue("name")
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	info, err := loam.File("").Stat(name)
	if err != nil && !loam.IsNotFound(err) {
		return nil, err
	}
	end, err := loam.File("").Append(name, info.Size, body)
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%d bytes\n", end)), nil
}

func getFile(r *loam.Request) (*loam.Response, error) {
	from, _ := strconv.ParseInt(r.Query().Get("from"), 10, 64) // from its begin where nothing is said
	length, _ := strconv.ParseInt(r.Query().Get("length"), 10, 64)
	data, info, err := loam.File("").GetRange(r.PathValue("name"), from, length)
	if err != nil {
		return nil, err
	}
	resp := loam.Bytes(200, info.ContentType, data)
	resp.Header.Add("X-File", fmt.Sprintf("%d %s by %s", info.Size, info.ETag, info.Metadata["by"]))
	return resp, nil
}

func deleteFile(r *loam.Request) (*loam.Response, error) {
	return nil, loam.File("").Delete(r.PathValue("name"))
}

func folder(r *loam.Request) (*loam.Response, error) {
	list, err := loam.File("").List(loam.FileQuery{Prefix: r.Query().Get("prefix"), Delimiter: "/", After: r.Query().Get("after"), Limit: 2})
	if err != nil {
		return nil, err
	}
	var page strings.Builder
	for _, p := range list.Prefixes {
		fmt.Fprintf(&page, "%s\n", p)
	}
	for _, f := range list.Files {
		fmt.Fprintf(&page, "%s: %d\n", f.Name, f.Size)
	}
	fmt.Fprintf(&page, "next: %s\n", list.Next)
	return loam.Text(200, page.String()), nil
}

// seal encrypts what it is sent, and answers what opens again; with ?broken=yes it is changed on the way.
func seal(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	sealed, err := loam.Crypto("").Seal(r.PathValue("key"), "AES", body)
	if err != nil {
		return nil, err
	}
	if r.Query().Get("broken") != "" {
		sealed[len(sealed)-1] ^= 1
	}
	opened, err := loam.Crypto("").Open("", sealed)
	if err != nil {
		return nil, err
	}
	return loam.Bytes(200, "application/octet-stream", opened), nil
}

// encrypt does the single operations with a key, there and back. Only an example repeats a nonce.
func encrypt(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	keys := loam.Crypto("")
	by := loam.Cipher{Key: r.PathValue("key"), Algorithm: "A256GCM", Nonce: []byte("twelve bytes"), Associated: []byte("tour")}
	secret, tag, err := keys.Encrypt(by, body)
	if err != nil {
		return nil, err
	}
	plain, err := keys.Decrypt(by, secret, tag)
	if err != nil {
		return nil, err
	}
	by = loam.Cipher{Key: r.PathValue("key"), Algorithm: "A256KW"}
	wrapped, _, err := keys.Wrap(by, []byte("a key of 16 byte"))
	if err != nil {
		return nil, err
	}
	key, err := keys.Unwrap(by, wrapped, nil)
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%d, %d: %s; %d: %s\n", len(secret), len(tag), plain, len(wrapped), key)), nil
}

// sign signs what it is sent, and looks whether that can be told from another signature.
func sign(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	signature, err := loam.Crypto("").Sign(r.PathValue("key"), "EdDSA", body)
	if err != nil {
		return nil, err
	}
	good, err := loam.Crypto("").Verify(r.PathValue("key"), "EdDSA", body, signature)
	if err != nil {
		return nil, err
	}
	signature[0] ^= 1
	bad, err := loam.Crypto("").Verify(r.PathValue("key"), "EdDSA", body, signature)
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%d bytes, %t, %t\n", len(signature), good, bad)), nil
}

func publicKey(r *loam.Request) (*loam.Response, error) {
	text, err := loam.Crypto("").PublicKey(r.PathValue("key"))
	if err != nil {
		return nil, err
	}
	return loam.Text(200, text), nil
}

// bind asks the binding for something of the file that the query names.
func bind(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	data, _, err := loam.Bind("").Invoke(r.PathValue("operation"), body, map[string]string{"fileName": r.Query().Get("file")})
	if err != nil {
		return nil, err
	}
	return loam.Bytes(200, "application/octet-stream", data), nil
}

// schedule has what it is sent brought back by work: when the query says, and in place of a job of that name if it says so.
func schedule(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	job := loam.Job{
		Name: r.PathValue("name"), Due: r.Query().Get("due"), Schedule: r.Query().Get("schedule"), Repeats: 2, Data: body, ContentType: "text/plain",
		RetryAfter: 50 * time.Millisecond, Retries: 5,
	}
	if job.Schedule == "" {
		job.Repeats = 1
	}
	if r.Query().Get("replace") != "" {
		return nil, loam.Jobs("").Replace(job)
	}
	return nil, loam.Jobs("").Schedule(job)
}

func getJob(r *loam.Request) (*loam.Response, error) {
	j, err := loam.Jobs("").Get(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return loam.Text(200, fmt.Sprintf("%s %s %s %d %s %d %s\n", j.Name, j.Schedule, j.Due, j.Repeats, j.ContentType, j.Retries, j.Data)), nil
}

func deleteJob(r *loam.Request) (*loam.Response, error) {
	return nil, loam.Jobs("").Delete(r.PathValue("name"))
}

// work remembers what a job brought, and refuses the same jobs as noted does events.
func work(r *loam.Request, data []byte) error {
	switch string(data) {
	case "nonsense":
		return fmt.Errorf("%w: it is nonsense", loam.ErrDrop)
	case "later":
		return loam.Errorf(loam.Unavailable, "not now")
	case "missing":
		_, err := loam.State("").Get("notes/missing")
		return err
	}
	_, err := loam.State("").Put("notes/job-"+r.PathValue("name"), fmt.Appendf(nil, "%s %s", r.Header.Get("content-type"), data))
	return err
}

// tick remembers what an input binding brought, and answers it.
func tick(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	if _, err := loam.State("").Put("notes/tick", fmt.Appendf(nil, "%s %s", r.Header.Get("timeZone"), body)); err != nil {
		return nil, err
	}
	return loam.Text(200, "ticked\n"), nil
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
