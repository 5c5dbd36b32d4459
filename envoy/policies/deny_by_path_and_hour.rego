# Administration is closed at night and on weekends (UTC), exports at the busiest hours.
package weir.rating

default allow := true

allow := false if closed

closed if {
    startswith(input.path, "/admin/")
    not working_hours
}

closed if {
    startswith(input.path, "/export/")
    input.time.hour in {9, 10, 11, 14, 15}
}

working_hours if {
    input.time.weekday <= 5
    input.time.hour >= 7
    input.time.hour < 19
}

reason := "closed at this hour; try again later" if closed
