package docs

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// curl is as much of the real one as the documents use: -s, -S, -f, -i, -X METHOD, -H FIELD, -d DATA and one URL. What
// it does not know is an error, so that a document does not show a line nobody tried.
func curl(args []string, stdout io.Writer) error {
	var method, url, data string
	var header []string
	var hasData, showHead, fail bool
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		value := func() (string, error) {
			if len(args) == 0 {
				return "", errors.New("curl: " + arg + " wants a value")
			}
			v := args[0]
			args = args[1:]
			return v, nil
		}
		var err error
		switch {
		case arg == "-X":
			method, err = value()
		case arg == "-H":
			var h string
			h, err = value()
			header = append(header, h)
		case arg == "-d":
			hasData = true
			data, err = value()
		case len(arg) > 1 && arg[0] == '-' && strings.Trim(arg[1:], "sSif") == "":
			showHead = showHead || strings.Contains(arg, "i")
			fail = fail || strings.Contains(arg, "f")
		case arg[0] == '-':
			err = errors.New("curl: the small curl of these tests does not know " + arg)
		case url == "":
			url = arg
		default:
			err = errors.New("curl: two URLs")
		}
		if err != nil {
			return err
		}
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	if method == "" {
		method = http.MethodGet
		if hasData {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequest(method, url, strings.NewReader(data))
	if err != nil {
		return err
	}
	if hasData {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range header {
		name, v, ok := strings.Cut(h, ":")
		if !ok {
			return errors.New("curl: -H wants \"Name: value\", got " + h)
		}
		req.Header.Set(name, strings.TrimSpace(v))
	}
	client := http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if fail && resp.StatusCode >= 400 {
		return fmt.Errorf("curl: the server answered %s", resp.Status)
	}
	if showHead {
		fmt.Fprintf(stdout, "%s %s\r\n", resp.Proto, resp.Status)
		if err := resp.Header.Write(stdout); err != nil {
			return err
		}
		fmt.Fprint(stdout, "\r\n")
	}
	_, err = io.Copy(stdout, resp.Body)
	return err
}
