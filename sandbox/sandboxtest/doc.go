// Package sandboxtest tests with sandboxes: Run is the conformance suite that
// every driver passes, New gives a test a ready sandbox, and Faulty makes any
// driver fail when and how a test wants it to.
package sandboxtest
