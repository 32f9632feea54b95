package app

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A program changes hands: it runs on, what it prints goes to the new one's log, and that one starts it again and ends it.
func TestGive(t *testing.T) {
	if !CanGive {
		if _, err := start(t, "serve", Command{}, silent).Give(); err == nil {
			t.Error("a program was given away where that cannot be")
		}
		return
	}
	old := start(t, "serve", Command{}, silent)
	pid, err := ask(t, old, "/pid")
	if err != nil {
		t.Fatal(err)
	}
	port, ready := old.Port()
	if !ready {
		t.Error("it answers, and is not ready")
	}
	var mu sync.Mutex
	var lines bytes.Buffer
	printed := func() string {
		mu.Lock()
		defer mu.Unlock()
		return lines.String()
	}
	next := Resume(engine, Command{Name: "mailer", Args: os.Args[:1], Env: map[string]string{"LOAM_TEST_APP": "serve"}, Port: port}, ready, slog.New(slog.NewTextHandler(locked{&mu, &lines}, nil)))
	t.Cleanup(func() { _ = next.Close(context.Background()) })
	g, err := old.Give()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Give(); err == nil {
		t.Error("it was given away twice")
	}
	if !next.Adopt(g) {
		t.Fatal("it was not adopted")
	}
	if next.Adopt(Given{}) {
		t.Error("it was adopted twice")
	}
	if err := old.Close(context.Background()); err != nil { // does not end it
		t.Error(err)
	}
	if again, err := ask(t, next, "/pid"); err != nil || again != pid {
		t.Errorf("process %s instead of %s, %v", again, pid, err)
	}
	if _, err := ask(t, next, "/exit"); err == nil {
		t.Error("it answered though it ended")
	}
	eventually(t, "it was started again", func() bool {
		again, err := ask(t, next, "/pid")
		return err == nil && again != pid
	})
	if out := printed(); !strings.Contains(out, "the app ended") || !strings.Contains(out, "out 1") {
		t.Error("the log says", out)
	}
	if err := next.Close(context.Background()); err != nil {
		t.Error(err)
	}
	eventually(t, "the program has ended", func() bool { return !listens(next.Address()) })
}

// A program that is adopted ends with the process that adopted it.
func TestAdoptedEnds(t *testing.T) {
	if !CanGive {
		t.Log("programs are not given away here")
		return
	}
	old := start(t, "stubborn", Command{}, silent)
	if _, err := ask(t, old, "/pid"); err != nil {
		t.Fatal(err)
	}
	port, ready := old.Port()
	g, err := old.Give()
	if err != nil {
		t.Fatal(err)
	}
	next := Resume(engine, Command{Name: "mailer", Args: os.Args[:1], Port: port, Grace: 50 * time.Millisecond}, ready, silent)
	if !next.Adopt(g) {
		t.Fatal("it was not adopted")
	}
	if err := next.Close(context.Background()); err != nil {
		t.Error(err)
	}
	eventually(t, "the program has ended", func() bool { return syscall.Kill(g.PID, 0) != nil })
}

// A program that had died when it was to be handed over is started by who takes it.
func TestAdoptNothing(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p := Resume(engine, Command{Name: "mailer", Args: os.Args[:1], Env: map[string]string{"LOAM_TEST_APP": "serve"}, Port: port}, false, silent)
	if !p.Adopt(Given{}) {
		t.Fatal("it was not adopted")
	}
	if _, err := ask(t, p, "/pid"); err != nil {
		t.Error(err)
	}
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	never := Resume(engine, Command{Name: "mailer", Args: os.Args[:1], Port: port}, false, silent)
	if err := never.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if never.Adopt(Given{}) {
		t.Error("it was adopted after its end")
	}
}
