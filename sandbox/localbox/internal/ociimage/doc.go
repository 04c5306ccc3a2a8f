// Package ociimage keeps the file systems that sandboxes start from: pulled from a
// registry layer by layer, built on top of each other, saved from a sandbox.
//
//	images/layers/<chain>/fs   what one layer adds, as overlayfs wants a lower directory
//	images/records/<id>.json   an image: its layers and its settings
//	images/keys/<key>          a link to the id of the image that was made for it
//	images/locks/<name>        held while something is made that is made once
//	images/work                locked by all who make something, and by who removes
//	images/tmp                 what is being made, or was being when its maker died
//	images/secret              what keys are made with, so that they tell nothing
//
// A layer is named by its chain: the digest of all layers up to it. A whiteout is
// a character device 0/0 and an opaque directory has the attribute
// user.overlay.opaque, since the mounts that show layers belong to a user
// namespace. Owners are the image's own when root keeps the store, and the
// user himself otherwise.
//
// Any number of processes use a store at once. What a killed one leaves is
// removed by the next Open.
package ociimage
