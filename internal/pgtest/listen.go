package pgtest

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Listen gives what passes on the notifications of a database: first "" when it listens,
// then every payload, until ctx ends or the connection is lost. It is what
// pglog.Options.Listen takes.
func Listen(url string) func(ctx context.Context, channel string, got func(payload string)) error {
	return func(ctx context.Context, channel string, got func(string)) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
		for got(""); ; {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			got(n.Payload)
		}
	}
}
