// Package drivermock has gomock mocks of the interfaces of package driver, for
// testing what a driver must be told or may answer.
//
// For a driver that behaves, and fails when told to, see package sandboxtest.
package drivermock

//go:generate go tool -modfile=../../tools/go.mod mockgen -typed -write_package_comment=false -package drivermock -destination drivermock.go github.com/vivarium-go/vivarium/sandbox/driver Provider,Sandbox,Snapshotter,SnapshotDeleter,Terminator,DirSnapshotter,ImageBuilder,ImageInspector,ImageMounter,NetworkSetter,ReadyWaiter,Watcher,Listener,Dialer,Process,FileSystem,File
