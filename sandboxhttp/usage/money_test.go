package usage_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
)

func TestMicroUSD(t *testing.T) {
	for amount, want := range map[float64]string{
		0: "$0.00", 0.3: "$0.30", 0.00014: "$0.00014", 2.5: "$2.50", -0.5: "-$0.50", 12345678.123456: "$12345678.123456",
		0.0000004: "$0.00", 0.0000006: "$0.000001", math.NaN(): "$0.00",
		math.Inf(1): "$9223372036854.775807", math.Inf(-1): "-$9223372036854.775808", 1e300: "$9223372036854.775807",
	} {
		if got := usage.Dollars(amount).String(); got != want {
			t.Errorf("%v is %s, want %s", amount, got, want)
		}
	}
	if got := usage.Dollars(0.1).Float(); got != 0.1 {
		t.Errorf("ten cents are %v", got)
	}
	// What a float64 cannot add up.
	var sum usage.MicroUSD
	for range 10 {
		sum += usage.Dollars(0.1)
	}
	if sum != usage.Dollar {
		t.Errorf("ten times ten cents are %v", sum)
	}
}

// FuzzMicroUSD wants what is read as an amount to be exactly that, and to be written as
// something that is read as the same.
func FuzzMicroUSD(f *testing.F) {
	for _, seed := range []string{"0", "-0.000001", "12.5", "9223372036854.775807", "-9223372036854.775808", "9223372036854.775808",
		"1.", ".5", "1e3", "0.1234567", "--1", "-", "", "null", "+1", "１", "00.50", "1_000", " 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var u usage.MicroUSD
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			if u != 0 {
				t.Errorf("%q is an error and %d", text, u)
			}
			return
		}
		want, ok := new(big.Rat).SetString(text)
		if got := big.NewRat(int64(u), int64(usage.Dollar)); !ok || got.Cmp(want) != 0 {
			t.Errorf("%q was read as %d", text, u)
		}
		written, err := json.Marshal(u)
		var again usage.MicroUSD
		if err != nil || json.Unmarshal(written, &again) != nil || again != u {
			t.Errorf("%d was written as %s, %v, and read as %d", u, written, err, again)
		}
	})
}
