//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A client speaks HTTP/1.1, or HTTP/2 where it makes gRPC calls. Hostile ones have connections of their own.
type client struct{ *http.Client }

func newClient(http2 bool) *client {
	var p http.Protocols
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	return &client{&http.Client{Transport: &http.Transport{Protocols: &p}}}
}

func (c *client) close() { c.CloseIdleConnections() }

// ask sends a request with the token, unless header says another.
func (c *client) ask(ctx context.Context, method, url, body string, header ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if strings.Contains(url, "%") { // as it stands
		req.URL.Opaque = "//" + strings.TrimPrefix(url, "http://")
	}
	req.Header.Set("dapr-api-token", token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// A message is one of gRPC's.
type message interface{ AppendProto([]byte) []byte }

// frame is a message as it is sent.
func frame(m []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 1, 5+len(m)), uint32(len(m))), m...)
}

// open begins a call whose body is what is read of it.
func (c *client) open(ctx context.Context, address, method string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+method, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("Dapr-Api-Token", token)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	return c.Do(req)
}

// call makes a call of one message and returns the status, and the message of the answer or the status's words.
func (c *client) call(ctx context.Context, address, method string, body []byte, header ...string) (int, string, error) {
	res, err := c.open(ctx, address, method, bytes.NewReader(body), header...)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", err
	}
	status, words, err := statusOf(res)
	if status == 0 && err == nil {
		if len(b) < 5 {
			return 0, "", errors.New("no message came")
		}
		words = string(b[5:])
	}
	return status, words, err
}

// statusOf is how a call ended whose body was read.
func statusOf(res *http.Response) (int, string, error) {
	status, words := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
	if status == "" {
		status, words = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
	}
	n, err := strconv.Atoi(status)
	if err != nil {
		return 0, "", fmt.Errorf("an answer of HTTP status %d without a status of gRPC", res.StatusCode)
	}
	if text, err := url.PathUnescape(words); err == nil {
		words = text
	}
	return n, words, nil
}

// receive reads a message of a stream.
func receive(r io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, b)
	return b, err
}
