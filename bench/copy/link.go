package main

import (
	"context"
	"io"
	"net"
	"time"
)

// link listens where clients reach the registry at addr over a network on which each
// connection gets bytesPerSecond towards the client, and a byte takes delay.
func link(ctx context.Context, addr string, bytesPerSecond int64, delay time.Duration) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer server.Close()
				go func() {
					io.Copy(server, client)
					server.(*net.TCPConn).CloseWrite()
				}()
				slowly(client, server, bytesPerSecond, delay)
			}()
		}
	}()
	return listener.Addr().String(), nil
}

// slowly copies what has come for delay, and then no more than the rate allows.
func slowly(w io.Writer, r io.Reader, bytesPerSecond int64, delay time.Duration) {
	const step = 64 << 10
	buffer := make([]byte, step)
	var due time.Time // when the bytes sent so far have passed
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if now := time.Now(); now.Sub(due) > delay { // nothing was on the way
				due = now.Add(delay)
			}
			due = due.Add(time.Duration(n) * time.Second / time.Duration(bytesPerSecond))
			time.Sleep(time.Until(due))
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
