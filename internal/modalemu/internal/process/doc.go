// Package process keeps what a command of a sandbox wrote, so that it can be
// read from any byte, again, and after the command has ended.
package process
