"""Whole programs put together from the parts: serve, paint, look, examine, install.

serve       `run` and `watch`: the daemon with all that is around it
reloading   a changed config is read again
order       what a command line asks to be painted
paint       `apply` and `demo`: that is painted here and now
sheet       `presets sheet`: one photo in many presets
overview    `status` and `jobs`
remote      how commands talk to the daemon
doctor      `doctor`
trial       its trial of the engine, in a process of its own
service     `service`: stylewatch under systemd
unit        its unit file
"""
