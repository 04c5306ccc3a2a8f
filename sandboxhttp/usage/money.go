package usage

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MicroUSD is an amount of money in millionths of a dollar, so that sums are exact. In
// JSON and CSV it is a number of dollars. The zero value is nothing.
type MicroUSD int64

// Dollar is one dollar.
const Dollar MicroUSD = 1_000_000

// Dollars converts an amount in dollars to the nearest that there is: Dollars(2.5).
// What is no number is nothing.
func Dollars(amount float64) MicroUSD {
	switch micros := math.Round(amount * float64(Dollar)); {
	case math.IsNaN(micros):
		return 0
	case micros >= math.MaxInt64:
		return math.MaxInt64
	case micros <= math.MinInt64:
		return math.MinInt64
	default:
		return MicroUSD(micros)
	}
}

// Float returns the amount in dollars.
func (u MicroUSD) Float() float64 { return float64(u) / float64(Dollar) }

// String returns the amount with as many digits as it needs, two at least: $0.30, $0.00014.
func (u MicroUSD) String() string {
	sign, text := "", decimal(int64(u), moneyDigits)
	if u < 0 {
		sign, text = "-", text[1:]
	}
	whole, fraction, _ := strings.Cut(text, ".")
	for len(fraction) < 2 {
		fraction += "0"
	}
	return sign + "$" + whole + "." + fraction
}

// MarshalJSON writes the number of dollars, exactly.
func (u MicroUSD) MarshalJSON() ([]byte, error) { return []byte(decimal(int64(u), moneyDigits)), nil }

// UnmarshalJSON reads a number of dollars with up to six decimals.
func (u *MicroUSD) UnmarshalJSON(data []byte) error {
	n, err := parseDecimal(string(data), moneyDigits)
	if err == nil {
		*u = MicroUSD(n)
	}
	return err
}

// How many decimals dollars and seconds have.
const (
	moneyDigits  = 6
	secondDigits = 9
)

// decimal writes n, which is in units of 10^-digits, exactly and with no more decimals
// than it needs.
func decimal(n int64, digits int) string {
	sign, magnitude := "", uint64(n)
	if n < 0 {
		sign, magnitude = "-", -magnitude
	}
	text := strconv.FormatUint(magnitude, 10)
	if short := digits + 1 - len(text); short > 0 {
		text = strings.Repeat("0", short) + text
	}
	whole, fraction := text[:len(text)-digits], strings.TrimRight(text[len(text)-digits:], "0")
	if fraction == "" {
		return sign + whole
	}
	return sign + whole + "." + fraction
}

// parseDecimal reads what decimal writes, and other numbers with no more decimals and
// without an exponent.
func parseDecimal(text string, digits int) (int64, error) {
	bad := fmt.Errorf("%w: %.40q is no number with up to %d decimals", ErrInvalid, text, digits)
	unsigned, negative := strings.CutPrefix(text, "-")
	whole, fraction, point := strings.Cut(unsigned, ".")
	if whole == "" || point && fraction == "" || len(fraction) > digits || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, bad
	}
	padded := whole + fraction + strings.Repeat("0", digits-len(fraction))
	if negative {
		padded = "-" + padded
	}
	n, err := strconv.ParseInt(padded, 10, 64)
	if err != nil {
		return 0, bad
	}
	return n, nil
}
