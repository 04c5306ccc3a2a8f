package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver" // "sqlite3" for database/sql

	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/claude/runlog/pglog"
	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

// records are the store of sandboxes and runs, and the logs of runs.
type records struct {
	*sqlstore.Store
	db   *sql.DB
	logs runlog.Store
}

func (r *records) Close() (err error) {
	if logs, ok := r.logs.(*pglog.Store); ok {
		err = logs.Close()
	}
	return errors.Join(err, r.db.Close())
}

// openRecords opens the PostgreSQL database at an address, or without one files in dir.
// No error of it has the address's password.
func openRecords(ctx context.Context, address, dir string) (*records, error) {
	if address == "" {
		return openFiles(ctx, dir)
	}
	r, err := openPostgreSQL(ctx, address)
	if err != nil {
		// As text only: an error that is wrapped could be taken apart.
		return nil, errors.New("-database: " + withoutSecrets(err.Error(), address))
	}
	return r, nil
}

// openFiles opens a database of SQLite, and a file for each run.
func openFiles(ctx context.Context, dir string) (*records, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil { // prompts are nobody else's business
		return nil, err
	}
	logs, err := runlog.Open(filepath.Join(dir, "runs"))
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, "records.db"))
	if err != nil {
		return nil, err
	}
	return storeIn(ctx, db, sqlstore.SQLite, func() (runlog.Store, error) { return logs, nil })
}

func openPostgreSQL(ctx context.Context, address string) (*records, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// What is wrong with it cannot be told without a part of it.
		return nil, errors.New("want an address postgres://USER:PASSWORD@HOST:PORT/NAME, in which special characters of the password are percent-encoded")
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*config)
	return storeIn(ctx, db, sqlstore.PostgreSQL, func() (runlog.Store, error) {
		return pglog.Open(ctx, db, &pglog.Options{Listen: listen(config)})
	})
}

func storeIn(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect, openLogs func() (runlog.Store, error)) (*records, error) {
	store, err := sqlstore.Open(ctx, db, dialect)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("records: %w", err), db.Close())
	}
	logs, err := openLogs()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("logs of runs: %w", err), db.Close())
	}
	return &records{store, db, logs}, nil
}

// listen passes on what PostgreSQL notifies on a channel, until ctx or the connection
// ends.
func listen(config *pgx.ConnConfig) func(ctx context.Context, channel string, got func(string)) error {
	return func(ctx context.Context, channel string, got func(string)) error {
		conn, err := pgx.ConnectConfig(ctx, config.Copy())
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
		got("")
		for {
			n, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			got(n.Payload)
		}
	}
}

// withoutSecrets takes an address and the passwords in it out of a text.
func withoutSecrets(text, address string) string {
	secrets := []string{address}
	if u, err := url.Parse(address); err == nil {
		passwords := u.Query()["password"]
		passwords = append(passwords, u.Query()["sslpassword"]...)
		if password, ok := u.User.Password(); ok {
			passwords = append(passwords, password, strings.TrimPrefix(u.User.String(), url.User(u.User.Username()).String()+":"))
		}
		for _, p := range passwords {
			secrets = append(secrets, p, url.QueryEscape(p), url.PathEscape(p))
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return text
}
