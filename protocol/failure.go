package protocol

import "errors"

// How an exchange with a server failed, for who decides whether to send the request again. The errors of clients wrap
// one of these where they know.
var (
	// ErrConnect: there was no connection to send the request on. No byte of it was sent, nor was its body read.
	ErrConnect = errors.New("no connection could be made")
	// ErrNotProcessed: the server has surely not acted on the request, and it may be sent again whatever its method.
	ErrNotProcessed = errors.New("the server did not process the request")
	// ErrConnectionLost: the connection ended before an answer began. What the server did of the request is not known: it
	// may be sent again if its method is idempotent.
	ErrConnectionLost = errors.New("the connection was lost")
)
