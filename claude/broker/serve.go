package broker

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/vivarium-go/vivarium/internal/boundlisten"
)

// drainLimit is how long requests under way may take once a server should end.
const drainLimit = 5 * time.Second

// Serve answers requests that come to l until the context is done; then it
// stops accepting, gives those under way five seconds, cuts the rest and
// returns nil. It closes l. It has 128 connections open at most, the next wait.
// Several may run at once: use one for each sandbox, so that none can take the
// connections of another.
func (b *Broker) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           b,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong

		DisableGeneralOptionsHandler: true,
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
		defer cancel()
		if srv.Shutdown(limited) != nil {
			_ = srv.Close() // cuts connections; there is nothing else to do about them
		}
	})
	err := srv.Serve(boundlisten.New(l, boundlisten.Connections))
	if stop() { // it failed by itself
		_ = srv.Close() // its error is err
		return err
	}
	<-drained
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
