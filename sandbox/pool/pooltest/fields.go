package pooltest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// fields saves a record with every field set, with each one alone, and without any, so
// that a field which is forgotten or mixed up with another is found. It saves them over
// a full record too.
func fields(t *testing.T, s pool.Store) {
	for name, r := range variants(t) {
		r.Pool, r.Key, r.Owner, r.ID, r.Revision = "pool", "sb-"+name, "acme", "sb-"+name, 0
		save(t, s, &r)
		want(t, s, &r)
		full := variants(t)["all"]
		full.Pool, full.Key, full.Owner, full.ID, full.Revision = "pool", "full-"+name, "acme", "full-"+name, 0
		save(t, s, &full)
		over := r
		over.Key, over.ID, over.Revision = full.Key, full.ID, full.Revision
		save(t, s, &over)
		want(t, s, &over)
		list, err := s.Records(t.Context(), pool.Query{Pool: "pool", ID: full.ID})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d records, %v", len(list), err)
		}
		same(t, list[0], &over)
	}
}

// variants gives a record with all fields set, with each alone, and with none.
func variants(t *testing.T) map[string]pool.Record {
	t.Helper()
	var all pool.Record
	fill(t, reflect.ValueOf(&all).Elem(), "all")
	list := map[string]pool.Record{"none": {}, "all": all}
	typ := reflect.TypeFor[pool.Record]()
	for i := range typ.NumField() {
		var alone pool.Record
		reflect.ValueOf(&alone).Elem().Field(i).Set(reflect.ValueOf(&all).Elem().Field(i))
		list[strings.ToLower(typ.Field(i).Name)] = alone
	}
	return list
}

// fill sets a value and all below it, except secrets, to something that is not zero and
// that no other value of the same type has. Times are not in UTC.
func fill(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	number := 0 // what tells this value from others
	for _, c := range path {
		number = number*31%9973 + int(c)
	}
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		zone := time.FixedZone("elsewhere", -7*3600)
		v.Set(reflect.ValueOf(start.Add(time.Duration(number)*time.Hour + time.Duration(number)*time.Microsecond).In(zone)))
		return
	case reflect.TypeFor[map[string]sandbox.Secret]():
		return // a record has none
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text of " + path)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(number))
	case reflect.Float64:
		v.SetFloat(float64(number) / 3)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), fmt.Sprint(path, ".", i))
		}
	case reflect.Map:
		fillMap(t, v, path)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	default:
		t.Fatalf("pooltest cannot set %s, a %s: teach it to", path, v.Type())
	}
	if v.IsZero() {
		t.Fatalf("pooltest has set %s to zero", path)
	}
}

func fillMap(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	v.Set(reflect.MakeMap(v.Type()))
	for i := range 3 {
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key, fmt.Sprint(path, ".key", i))
		fill(t, value, fmt.Sprint(path, ".value", i))
		v.SetMapIndex(key, value)
	}
}

// notUTC names a time in a record that is not in UTC.
func notUTC(r *pool.Record) string {
	var look func(v reflect.Value, path string) string
	first := func(n int, at func(i int) (reflect.Value, string)) string {
		for i := range n {
			if where := look(at(i)); where != "" {
				return where
			}
		}
		return ""
	}
	look = func(v reflect.Value, path string) string {
		switch at, isTime := v.Interface().(time.Time); {
		case isTime && at.Location() != time.UTC:
			return path
		case isTime || v.Type() == reflect.TypeFor[sandbox.Config]():
			return ""
		}
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				return look(v.Elem(), path)
			}
		case reflect.Map:
			keys := v.MapKeys()
			return first(len(keys), func(i int) (reflect.Value, string) { return v.MapIndex(keys[i]), path + "[]" })
		case reflect.Struct:
			return first(v.NumField(), func(i int) (reflect.Value, string) {
				return v.Field(i), path + "." + v.Type().Field(i).Name
			})
		}
		return ""
	}
	return look(reflect.ValueOf(r), "record")
}

// nilAndEmptyMaps: one is not the other to those who read.
func nilAndEmptyMaps(t *testing.T, s pool.Store) {
	r := blank("acme", "sb-1")
	r.Labels, r.Busy, r.Config.Env = map[string]string{}, map[string]time.Time{}, map[string]string{}
	save(t, s, r)
	want(t, s, r)
	r.Labels, r.Busy, r.Config.Env = nil, nil, nil
	save(t, s, r)
	want(t, s, r)
}

// ownRecords: what is done to a record that was given or returned changes nothing.
func ownRecords(t *testing.T, s pool.Store) {
	r := variants(t)["all"]
	r.Pool, r.Revision = "pool", 0
	save(t, s, &r)
	kept := variants(t)["all"]
	kept.Pool, kept.Revision = "pool", 1
	spoil := func(r *pool.Record) {
		clear(r.Labels)
		clear(r.Busy)
		clear(r.Config.Env)
		r.Rollover.To.ID, r.Old.ID, r.Stop.Saved, r.Config.Image.Commands[0] = "spoilt", "spoilt", false, "spoilt"
	}
	spoil(&r)
	got, err := s.Record(t.Context(), "pool", r.Key)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, &kept)
	spoil(got)
	list, err := s.Records(t.Context(), pool.Query{Pool: "pool"})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	same(t, list[0], &kept)
	spoil(list[0])
	want(t, s, &kept)
}

// oddTexts are kept and found as they are.
func oddTexts(t *testing.T, s pool.Store) {
	texts := []string{"a\x00b", "a", "A", "a ", " a", "'", `"`, "%", "_", "\\", "?", "$1", "é", "e\u0301", "\U0001F512", "\n", "null", "0"}
	var all []*pool.Record
	for _, text := range texts {
		r := blank(text, text)
		r.Spare, r.Error, r.Labels = text, text, map[string]string{text: text}
		save(t, s, r)
		all = append(all, r)
	}
	for _, r := range all {
		want(t, s, r)
		for _, q := range []pool.Query{{Pool: "pool", Owner: r.Key}, {Pool: "pool", ID: r.Key}, {Pool: "pool", Spare: r.Key}} {
			list, err := s.Records(t.Context(), q)
			if err != nil || len(list) != 1 || list[0].Key != r.Key {
				t.Errorf("%+v: %q, %v", q, keys(list), err)
			}
		}
	}
}

func longTexts(t *testing.T, s pool.Store) {
	r := blank(strings.Repeat("o", 255), strings.Repeat("k", 255))
	r.Error, r.Labels = strings.Repeat("é", 1<<19), map[string]string{"long": strings.Repeat("l", 1<<20)}
	save(t, s, r)
	want(t, s, r)
}
