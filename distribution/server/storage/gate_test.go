package storage

import (
	"errors"
	"testing"
	"time"
)

// TestLate: nobody removes anything when others may take the gate for a dead
// holder's before that is done.
func TestLate(t *testing.T) {
	for age, late := range map[time.Duration]bool{0: false, sweepLimit: false, 3 * sweepLimit: true, gateLife: true} {
		gate := closedGate{until: time.Now().Add(sweepLimit - age)}
		if err := gate.late(); errors.Is(err, ErrBusy) != late {
			t.Errorf("closed %s ago: %v", age, err)
		}
	}
}
