package storetest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// sandboxFields saves a record with every field set, with each one alone, and
// without any, so that a field which is forgotten or mixed up with another is found.
func sandboxFields(t *testing.T, s sandboxhttp.Store) {
	for name, rec := range variants(t, sandboxhttp.Sandbox{}) {
		rec.Account, rec.ID = "acme", "sb-"+name
		save(t, s, &rec)
		wantSandbox(t, s, &rec)
		list, err := s.Sandboxes(t.Context(), "acme", sandboxhttp.Query{})
		if err != nil {
			t.Fatal(err)
		}
		for _, listed := range list {
			if listed.ID == rec.ID {
				same(t, "listed", listed, &rec)
			}
		}
	}
}

func runFields(t *testing.T, s sandboxhttp.Store) {
	save(t, s, box("acme", "sb", 0))
	for name, rec := range variants(t, sandboxhttp.Run{}) {
		rec.Account, rec.SandboxID, rec.ID = "acme", "sb", "run-"+name
		saveRuns(t, s, &rec)
		wantRun(t, s, &rec)
		list, err := s.Runs(t.Context(), "acme", "sb")
		if err != nil {
			t.Fatal(err)
		}
		for _, listed := range list {
			if listed.ID == rec.ID {
				same(t, "listed", listed, &rec)
			}
		}
	}
}

// variants gives a record with all fields set, with each alone, and with none.
func variants[T any](t *testing.T, none T) map[string]T {
	t.Helper()
	all := none
	fill(t, reflect.ValueOf(&all).Elem(), "all")
	list := map[string]T{"none": none, "all": all}
	typ := reflect.TypeFor[T]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		alone := none
		reflect.ValueOf(&alone).Elem().Field(i).Set(reflect.ValueOf(&all).Elem().Field(i))
		list[strings.ToLower(name)] = alone
	}
	return list
}

// fill sets a value and all below it to something that is not zero and that no other
// value of the same type has. Times are not in UTC.
func fill(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	number := 0 // what tells this value from others
	for _, c := range path {
		number = number*31%9973 + int(c)
	}
	if v.Type() == reflect.TypeFor[time.Time]() {
		zone := time.FixedZone("elsewhere", -7*3600)
		v.Set(reflect.ValueOf(start.Add(time.Duration(number)*time.Hour + time.Duration(number)*time.Microsecond).In(zone)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text of " + path)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(int64(number))
	case reflect.Uint64:
		v.SetUint(1<<63 + uint64(number)) // a float64 and an int64 would lose it
	case reflect.Float64:
		v.SetFloat(float64(number) / 3)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), path)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range 3 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key, fmt.Sprint(path, ".key", i))
			fill(t, value, fmt.Sprint(path, ".value", i))
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	default:
		t.Fatalf("storetest cannot set %s, a %s: teach it to", path, v.Type())
	}
	if v.IsZero() {
		t.Fatalf("storetest has set %s to zero", path)
	}
}

// notUTC names a time in a record that is not in UTC.
func notUTC(record any) string {
	var look func(v reflect.Value, path string) string
	look = func(v reflect.Value, path string) string {
		if at, ok := v.Interface().(time.Time); ok {
			if at.Location() != time.UTC {
				return path
			}
			return ""
		}
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				return look(v.Elem(), path)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if where := look(v.Field(i), path+"."+v.Type().Field(i).Name); where != "" {
					return where
				}
			}
		}
		return ""
	}
	return look(reflect.ValueOf(record), "record")
}

// nilAndEmptyMaps: clients read one as null and the other as {}.
func nilAndEmptyMaps(t *testing.T, s sandboxhttp.Store) {
	rec := box("acme", "sb", 0)
	rec.Tags, rec.Ports, rec.Unenforced = map[string]string{}, map[string]string{}, map[string]string{}
	save(t, s, rec)
	wantSandbox(t, s, rec)
	rec.Tags, rec.Ports, rec.Unenforced = nil, nil, nil
	save(t, s, rec)
	wantSandbox(t, s, rec)
}
