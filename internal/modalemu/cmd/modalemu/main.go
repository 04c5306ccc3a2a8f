// Command modalemu serves Modal's protocol on this machine.
package main

func main() {}
