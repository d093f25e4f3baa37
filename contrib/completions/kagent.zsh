#compdef kagent
_arguments -s -S -A '-*' \
    '(-A -T)-a[listen here]:socket:_files' \
    '(-a -T)-A[socket in a directory]:user\:DIRECTORY or shared\:DIRECTORY:' \
    '(-s)-c[print for csh]' \
    '(-c)-s[print for sh]' \
    '-D[stay in the foreground]' \
    '-d[stay in the foreground, and tell more]' \
    '-E[hash of fingerprints]:hash:(md5 sha1 sha256 sha384 sha512)' \
    '-k[end the agent]' \
    '*-O[option]:option:(no-restrict-websafe websafe-allow= allow-remote-pkcs11)' \
    '-P[libraries that may be loaded]:patterns:_files' \
    '(-A -a)-T[socket in TMPDIR]' \
    '-t[lifetime of keys]:time:' \
    '-U[leave stale sockets]' \
    '*-u[remove stale sockets]' \
    '-V[version]' \
    '*--behind[another agent, whose keys are used too]:socket:_files' \
    '--confirm-behind[ask before such a key is used]:when:(always forwarded)' \
    '--custody[how keys must be held]:custody:(kernel sealed)' \
    '--help[show the usage]' \
    '--burst[how long a sign worker signs on]:milliseconds:' \
    '--idle-exit[end when idle for so long]:time:' \
    '--keyring[where keys are anchored]:keyring:(session user persistent private)' \
    '*::command: _normal'
