package policy

import (
	"errors"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
)

// errRefused is wrapped by the errors of policies that answer in the target's place, to guard it: no reason to retry.
var errRefused = errors.New("refused on the way")

// refusal is such an error, made once.
func refusal(code loam.Code, op, why, hint string) error {
	return &loam.Error{Code: code, Op: op, Err: &refused{why}, Hint: hint}
}

type refused struct{ why string }

func (r *refused) Error() string { return r.why }
func (r *refused) Unwrap() error { return errRefused }

// answer makes an answer of an error, in the words of who asked, where a policy has to add fields to it.
func answer(req *loam.Request, err error) *loam.Response {
	if grpc.Is(req.Header.Get("Content-Type")) {
		return grpc.ErrorResponse(err)
	}
	return protocol.ErrorResponse(err, req.ID)
}

// answerStatus is answer with a status that no code has.
func answerStatus(req *loam.Request, status int, err error) *loam.Response {
	res := answer(req, err)
	if !grpc.Is(req.Header.Get("Content-Type")) {
		res.Status = status
	}
	return res
}
