// Package torture serves many agents at once over HTTP, from two servers with one
// database and one directory of sandboxes, and cuts everything: the servers (kill -9),
// the database (a crash or a restart), and the connections of those who ask and who follow.
// Clients try again, with the same Idempotency-Keys, through either server.
//
// Nothing may be lost, doubled, orphaned, or called finished that is not. What a run was is
// told by its sandbox: the program that is the CLI there keeps the job's journal and its
// exit, as the files that they are, when the server removes the job.
//
// It is tests only: `make torture` is the whole of it, with figures.
package torture
