package app

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The kernel ends the app with Loam, however Loam ended.
func TestProcessDiesWithUs(t *testing.T) {
	cmd, address := startSupervisor(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its status is that it was killed
	eventually(t, "the app is gone", func() bool { return !listens(address) })
}

// startSupervisor starts a process that plays Loam and tells where its app listens.
func startSupervisor(t *testing.T) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOAM_TEST_APP=supervisor")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, cmd.Process.Kill()))
	}
	address := strings.TrimSpace(line)
	eventually(t, "the app listens", func() bool { return listens(address) })
	return cmd, address
}
