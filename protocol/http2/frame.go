package http2

import (
	"encoding/binary"
	"strconv"
)

// preface is what a client's connection begins with (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Preface is what a connection of HTTP/2 begins with: a listener tells by it which protocol a client speaks.
const Preface = preface

const (
	frameHeader = 9
	maxFrame    = 16 << 10 // of a frame's payload: what every peer takes, and all that is taken here
	maxWindow   = 1<<31 - 1
	maxStreamID = 1<<31 - 1
)

// Frame types (RFC 9113, section 6).
const (
	frameData byte = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings (RFC 9113, section 6.5.2; RFC 8441, section 3).
const (
	settingTableSize       = 0x1
	settingPush            = 0x2
	settingStreams         = 0x3
	settingWindow          = 0x4
	settingFrame           = 0x5
	settingHeaderList      = 0x6
	settingConnectProtocol = 0x8
)

// A Code is an error code of HTTP/2 (RFC 9113, section 7).
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String is the code's name in the RFC.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// A fault ends the connection it came in on: the peer broke the rules in a way that leaves no common ground, or is a
// nuisance.
type fault struct {
	code Code
	why  string
}

func (f *fault) Error() string { return f.code.String() + ": " + f.why }

// appendFrame adds a frame's header.
func appendFrame(b []byte, length int, kind, flags byte, id uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendReset(b []byte, id uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameReset, 0, id), uint32(code))
}

func appendWindowUpdate(b []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameWindowUpdate, 0, id), n)
}

func appendGoAway(b []byte, last uint32, code Code, why string) []byte {
	b = appendFrame(b, 8+len(why), frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, why...)
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// unpad takes the padding off a payload (RFC 9113, section 6.1). It is false where the padding is longer than it.
func unpad(p []byte, flags byte) ([]byte, bool) {
	if flags&flagPadded == 0 {
		return p, true
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}
