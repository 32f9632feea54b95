package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify("READY=1"); err != nil {
		t.Error("nobody asked:", err)
	}
	address := filepath.Join(t.TempDir(), "socket")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", address)
	if err := notify("MAINPID=4711"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := manager.Read(b); err != nil || string(b[:n]) != "MAINPID=4711" {
		t.Errorf("%q %v", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := notify("READY=1"); err == nil {
		t.Error("nobody listens, and no error")
	}
}

// A process is replaced by the file of the name that it was started by, which may be a link that leads elsewhere by now.
func TestSuccessorBinary(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "loam")
	if err := os.Symlink("/old/loam", link); err != nil {
		t.Fatal(err)
	}
	args := os.Args
	t.Cleanup(func() { os.Args = args })
	os.Args = []string{link, "run", "app.yaml"}
	make := successor(os.Getpid())
	for binary, want := range map[string]string{"": link, "/opt/loam": "/opt/loam"} {
		cmd, err := make(binary)
		if err != nil || cmd.Path != want || len(cmd.Args) != 3 || cmd.Args[1] != "run" {
			t.Errorf("%q: %v %v", binary, cmd, err)
		}
	}
}
