// Package peerbench measures package storage against the tools that people keep
// directories in S3 with: restic, kopia, rclone, s5cmd, mc and the AWS CLI, and
// against a floor, one tar through zstd in one upload. All of them work on one
// real S3 server on loopback, with all data in memory, in turns, in one run. It
// has benchmarks only: make bench-storage runs them.
package peerbench
