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

	"github.com/vivarium-go/vivarium/sandboxhttp/sqlstore"
)

// records are the store of sandboxes and runs, and its database.
type records struct {
	*sqlstore.Store
	db *sql.DB
}

func (r *records) Close() error { return r.db.Close() }

// openRecords opens the PostgreSQL database at an address, or without one a file of
// SQLite in dir. No error of it has the address's password.
func openRecords(ctx context.Context, address, dir string) (*records, error) {
	if address == "" {
		return openSQLite(ctx, dir)
	}
	r, err := openPostgreSQL(ctx, address)
	if err != nil {
		// As text only: an error that is wrapped could be taken apart.
		return nil, errors.New("-database: " + withoutSecrets(err.Error(), address))
	}
	return r, nil
}

func openSQLite(ctx context.Context, dir string) (*records, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil { // prompts are nobody else's business
		return nil, err
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, "records.db"))
	if err != nil {
		return nil, err
	}
	return storeIn(ctx, db, sqlstore.SQLite)
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
	return storeIn(ctx, stdlib.OpenDB(*config), sqlstore.PostgreSQL)
}

func storeIn(ctx context.Context, db *sql.DB, dialect sqlstore.Dialect) (*records, error) {
	store, err := sqlstore.Open(ctx, db, dialect)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("records: %w", err), db.Close())
	}
	return &records{store, db}, nil
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
