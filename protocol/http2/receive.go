package http2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// frames takes whole frames from p.
func (c *conn) frames(p []byte) (used int, f *fault) {
	if c.preface > 0 {
		n := min(c.preface, len(p))
		if string(p[:n]) != preface[len(preface)-c.preface:][:n] {
			return 0, &fault{ProtocolError, "this is not HTTP/2"}
		}
		c.preface -= n
		used = n
	}
	for !c.ending && len(p)-used >= frameHeader {
		h := p[used:]
		length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		if length > maxFrame {
			return used, &fault{FrameSizeError, "a frame is too large"}
		}
		if len(h) < frameHeader+length {
			break
		}
		used += frameHeader + length
		id := binary.BigEndian.Uint32(h[5:]) & maxStreamID
		if f := c.take(h[3], h[4], id, h[frameHeader:frameHeader+length]); f != nil {
			return used, f
		}
	}
	return used, nil
}

func (c *conn) take(kind, flags byte, id uint32, p []byte) *fault {
	if c.gather != 0 && (kind != frameContinuation || id != c.gather) {
		return &fault{ProtocolError, "a head is interrupted"}
	}
	if !c.greeted && (kind != frameSettings || flags&flagAck != 0) {
		return &fault{ProtocolError, "the first frame is not SETTINGS"}
	}
	switch kind {
	case frameData:
		return c.onData(flags, id, p)
	case frameHeaders:
		return c.onHeaders(flags, id, p)
	case frameContinuation:
		return c.onContinuation(flags, id, p)
	case frameReset:
		return c.onReset(id, p)
	case frameWindowUpdate:
		return c.onWindowUpdate(id, p)
	case frameSettings:
		return c.onSettings(flags, id, p)
	case framePing:
		return c.onPing(flags, id, p)
	case frameGoAway:
		return c.onGoAway(id, p)
	case framePriority:
		if id == 0 {
			return &fault{ProtocolError, "PRIORITY of no stream"}
		}
		if len(p) != 5 {
			c.refuse(id, FrameSizeError)
		} else if binary.BigEndian.Uint32(p)&maxStreamID == id {
			c.refuse(id, ProtocolError)
		}
		return c.nuisance()
	case framePushPromise:
		return &fault{ProtocolError, "PUSH_PROMISE, which nobody asked for"}
	}
	return c.nuisance() // of a kind that is not known: ignored (RFC 9113, section 5.5)
}

// nuisance counts a frame that moves no request on.
func (c *conn) nuisance() *fault {
	if c.calm--; c.calm >= 0 {
		return nil
	}
	since := c.sh.now.Sub(c.calmAt)
	c.calmAt = c.sh.now
	c.calm = int(min(since, 2*time.Second) * time.Duration(c.lim.Nuisance) / 2 / time.Second)
	if c.calm <= 0 {
		return &fault{EnhanceYourCalm, "too many frames that move nothing"}
	}
	return nil
}

// moved makes up for frames that come because of what was sent.
func (c *conn) moved() {
	if c.calm < c.lim.Nuisance {
		c.calm += 2
	}
}

// idle tells whether a stream was not opened yet.
func (c *conn) idle(id uint32) bool {
	return id > c.last || id&1 == 0 // servers open none: push is off
}

// refuse answers what came on one stream by its reset, whether we know that stream or not.
func (c *conn) refuse(id uint32, code Code) {
	if s := c.streams[id]; s != nil {
		s.abort(loam.Errorf(loam.Internal, "http2", "the peer broke the protocol: %v", code), code)
		return
	}
	c.sendReset(id, code)
}

func (c *conn) sendReset(id uint32, code Code) {
	c.out = appendReset(c.room(), id, code)
	c.wants()
	const keep = 128
	if len(c.resets) >= keep {
		c.forgot = max(c.forgot, slices.Max(c.resets[:keep/2]))
		c.resets = append(c.resets[:0], c.resets[keep/2:]...)
	}
	c.resets = append(c.resets, id)
}

// wasReset tells whether we reset a stream, as far as we remember: what comes on it was sent before the peer knew.
func (c *conn) wasReset(id uint32) bool { return id <= c.forgot || slices.Contains(c.resets, id) }

func (c *conn) onData(flags byte, id uint32, p []byte) *fault {
	size := len(p)
	switch {
	case id == 0:
		return &fault{ProtocolError, "DATA of no stream"}
	case c.idle(id):
		return &fault{ProtocolError, "DATA of a stream that was not opened"}
	}
	if c.recvWindow -= int64(size); c.recvWindow < 0 {
		return &fault{FlowControlError, "more DATA than the connection's window"}
	}
	p, ok := unpad(p, flags)
	if !ok {
		return &fault{ProtocolError, "padding beyond its frame"}
	}
	c.credit += int64(size - len(p))
	if len(p) == 0 && flags&flagEndStream == 0 {
		if f := c.nuisance(); f != nil {
			return f
		}
	}
	s := c.streams[id]
	if s == nil || s.recvEnd {
		c.credit += int64(len(p))
		switch {
		case s == nil && c.wasReset(id):
			return nil
		case s == nil:
			return &fault{StreamClosed, "DATA of a stream that is closed"}
		}
		c.refuse(id, StreamClosed)
		return c.nuisance()
	}
	if s.recvWindow -= int64(size); s.recvWindow < 0 {
		c.credit += int64(len(p))
		c.refuse(id, FlowControlError)
		return nil
	}
	s.credit += int64(size - len(p))
	s.arrived(p, flags&flagEndStream != 0)
	return nil
}

func (c *conn) onHeaders(flags byte, id uint32, p []byte) *fault {
	if id == 0 {
		return &fault{ProtocolError, "HEADERS of no stream"}
	}
	p, ok := unpad(p, flags)
	if !ok {
		return &fault{ProtocolError, "padding beyond its frame"}
	}
	depends := uint32(0)
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return &fault{FrameSizeError, "HEADERS without room for its priority"}
		}
		depends = binary.BigEndian.Uint32(p) & maxStreamID
		p = p[5:]
	}
	if flags&flagEndHeaders == 0 {
		c.gather, c.flags, c.pieces = id, flags, 0
		c.block = append(c.block[:0], p...)
		if depends == id {
			c.flags |= flagAck << 1 // no flag of HEADERS: remembered until its end
		}
		return nil
	}
	return c.onBlock(id, flags&flagEndStream != 0, p, depends == id)
}

func (c *conn) onContinuation(flags byte, id uint32, p []byte) *fault {
	if c.gather == 0 {
		return &fault{ProtocolError, "CONTINUATION of nothing"}
	}
	c.block = append(c.block, p...)
	c.pieces++
	// Compressed it may be no larger than the fields themselves may be, and it must come in pieces worth their frames.
	if len(c.block) > c.lim.Head+maxFrame || c.pieces > 8+len(c.block)>>10 {
		return &fault{EnhanceYourCalm, "a head of too many pieces"}
	}
	if flags&flagEndHeaders == 0 {
		return nil
	}
	c.gather = 0
	f := c.onBlock(id, c.flags&flagEndStream != 0, c.block, c.flags&(flagAck<<1) != 0)
	c.block = nil
	return f
}

// onBlock takes a whole block of fields.
func (c *conn) onBlock(id uint32, end bool, block []byte, loops bool) *fault {
	if c.srv == nil {
		return c.onResponse(id, end, block)
	}
	return c.onRequest(id, end, block, loops)
}

// skip decodes a block that nobody reads: the dynamic table must follow all the same.
func (c *conn) skip(block []byte) *fault {
	if c.scrap == nil {
		c.scrap = &head{}
	}
	if _, err := c.dec.decode(block, trailerHead, c.scrap); errors.Is(err, errCompression) {
		return &fault{CompressionError, "a head is not HPACK"}
	}
	return nil
}

func (c *conn) onReset(id uint32, p []byte) *fault {
	switch {
	case len(p) != 4:
		return &fault{FrameSizeError, "RST_STREAM of another size"}
	case id == 0 || c.idle(id):
		return &fault{ProtocolError, "RST_STREAM of a stream that was not opened"}
	}
	if s := c.streams[id]; s != nil {
		s.wasReset(Code(binary.BigEndian.Uint32(p)))
	}
	return c.nuisance()
}

func (c *conn) onWindowUpdate(id uint32, p []byte) *fault {
	if len(p) != 4 {
		return &fault{FrameSizeError, "WINDOW_UPDATE of another size"}
	}
	n := int64(binary.BigEndian.Uint32(p) & maxWindow)
	// A receiver opens its windows as it reads, by some thousands of bytes at a time: that is no nuisance.
	if n >= 1<<10 && n <= c.lent {
		c.lent -= n
	} else if f := c.nuisance(); f != nil {
		return f
	}
	if id == 0 {
		if n == 0 {
			return &fault{ProtocolError, "WINDOW_UPDATE by nothing"}
		}
		if c.window += n; c.window > maxWindow {
			return &fault{FlowControlError, "the connection's window is too large"}
		}
		c.resume()
		return nil
	}
	if c.idle(id) {
		return &fault{ProtocolError, "WINDOW_UPDATE of a stream that was not opened"}
	}
	s := c.streams[id]
	switch {
	case s == nil: // it is over here already
	case n == 0:
		c.refuse(id, ProtocolError)
	case s.window+n > maxWindow:
		c.refuse(id, FlowControlError)
	default:
		s.window += n
		s.resume()
	}
	return nil
}

func (c *conn) onSettings(flags byte, id uint32, p []byte) *fault {
	if id != 0 {
		return &fault{ProtocolError, "SETTINGS of a stream"}
	}
	if flags&flagAck != 0 {
		if len(p) != 0 {
			return &fault{FrameSizeError, "an acknowledgement that says something"}
		}
		c.dec.acknowledged()
		return c.nuisance()
	}
	if len(p)%6 != 0 {
		return &fault{FrameSizeError, "SETTINGS of another size"}
	}
	first := !c.greeted
	c.greeted = true
	if first && c.srv == nil {
		c.most = 1<<32 - 1 // unless it says otherwise now
	}
	for ; len(p) > 0; p = p[6:] {
		if f := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); f != nil {
			return f
		}
	}
	c.out = appendFrame(c.room(), 0, frameSettings, flagAck, 0)
	c.wants()
	if c.pool != nil {
		c.pool.wake()
	}
	if first {
		return nil
	}
	return c.nuisance()
}

func (c *conn) set(id uint16, value uint32) *fault {
	switch id {
	case settingTableSize:
		c.resize = true
	case settingPush:
		if value > 1 || value == 1 && c.srv == nil {
			return &fault{ProtocolError, "ENABLE_PUSH"}
		}
	case settingStreams:
		c.most = value
	case settingWindow:
		if value > maxWindow {
			return &fault{FlowControlError, "INITIAL_WINDOW_SIZE"}
		}
		change := int64(value) - c.first
		c.first = int64(value)
		for _, s := range c.streams {
			if s.window += change; s.window > maxWindow {
				return &fault{FlowControlError, "a stream's window is too large"}
			}
			if change > 0 {
				s.resume()
			}
		}
	case settingFrame:
		if value < maxFrame || value > 1<<24-1 {
			return &fault{ProtocolError, "MAX_FRAME_SIZE"}
		}
	case settingConnectProtocol:
		if value > 1 || value == 0 && c.websocket {
			return &fault{ProtocolError, "ENABLE_CONNECT_PROTOCOL"}
		}
		c.websocket = value == 1
	}
	return nil
}

func (c *conn) onPing(flags byte, id uint32, p []byte) *fault {
	switch {
	case id != 0:
		return &fault{ProtocolError, "PING of a stream"}
	case len(p) != 8:
		return &fault{FrameSizeError, "PING of another size"}
	case flags&flagAck != 0:
		if c.draining == warned && string(p) == drainPing {
			c.warned()
		}
		return c.nuisance()
	}
	c.out = append(appendFrame(c.room(), 8, framePing, flagAck, 0), p...)
	c.wants()
	return c.nuisance()
}

func (c *conn) onGoAway(id uint32, p []byte) *fault {
	switch {
	case id != 0:
		return &fault{ProtocolError, "GOAWAY of a stream"}
	case len(p) < 8:
		return &fault{FrameSizeError, "GOAWAY of another size"}
	}
	if c.srv != nil {
		return c.nuisance() // a client that goes ends its streams, or the connection
	}
	last, code := binary.BigEndian.Uint32(p)&maxStreamID, Code(binary.BigEndian.Uint32(p[4:]))
	c.draining = goneAway
	c.pool.remove(c)
	for id, s := range c.streams {
		if id > last {
			s.broken(&loam.Error{Code: loam.Unavailable, Op: "http2", Err: fmt.Errorf("%w: it goes away (%v)", protocol.ErrNotProcessed, code)})
		}
	}
	c.checkDone()
	return c.nuisance()
}
