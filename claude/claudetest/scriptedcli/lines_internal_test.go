package scriptedcli

import (
	"encoding/json"
	"reflect"
	"testing"
)

func FuzzResults(f *testing.F) {
	f.Add([]byte(`{"type":"result","user_message_uuid":"a","user_message_uuids":["a","b"],"origin":{"kind":"x"},"result":"é\u0000"}`))
	f.Add([]byte(`{"type":"result","origin":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		endsTurn(data)
		var before, after Line
		changed := withUUID(data, "u")
		if json.Unmarshal(data, &before) != nil || before == nil {
			return
		}
		if err := json.Unmarshal(changed, &after); err != nil {
			t.Fatalf("%s became %s: %v", data, changed, err)
		}
		before["user_message_uuids"] = []any{"u"}
		if _, ok := before["user_message_uuid"]; ok {
			before["user_message_uuid"] = "u"
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s became %s", data, changed)
		}
	})
}
