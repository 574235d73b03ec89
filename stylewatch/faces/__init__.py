"""What people, services and other programs see: events in, words and pictures out.

lines      events as lines of a log
console    the live view, and bars for commands that paint
board      what the view shows, put together from events
view       how it looks
preview    small pictures in it
terminal   the terminal's screen, keys and signals
control    the socket by which programs talk to the daemon
wire       the lines of its protocol
recent     what a new client is told of the past
metrics    figures for Prometheus
notify     word to systemd
"""
