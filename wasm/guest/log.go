package guest

import (
	"encoding/json"
	"log/slog"
)

// maxMessage is how long a line of the log is that a guest writes by a call of its ABI, in bytes; the rest is cut off.
const maxMessage = 4 << 10

// Log writes a line to the function's log, as one that the guest printed.
func (c *Call) Log(level slog.Level, message []byte) {
	message = message[:min(len(message), maxMessage)]
	c.Owner.Worked(int64(len(message)))
	if c.Stdout == nil {
		return
	}
	line, err := json.Marshal(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
	}{level.String(), string(message)})
	if err != nil { // two strings can always be written
		return
	}
	_, _ = c.Stdout.Write(append(line, '\n')) // it takes everything, or drops it
}
