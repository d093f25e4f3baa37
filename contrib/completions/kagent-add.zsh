#compdef kagent-add
_arguments -s -S \
    '-c[ask before each signature]' \
    '-C[certificates only]' \
    '-D[remove all keys]' \
    '-d[remove keys]' \
    '-E[hash of fingerprints]:hash:(md5 sha1 sha256 sha384 sha512)' \
    '-e[remove a PKCS\#11 token]:library:_files' \
    '*-H[known hosts]:file:_files' \
    '*-h[for some hosts only]:destination:' \
    '-K[keys of a FIDO token]' \
    '-k[no certificates]' \
    '-L[list public keys]' \
    '-l[list fingerprints]' \
    '-N[keep certificates after their end]' \
    '-P[ask for no PIN]' \
    '-Q[list extensions]' \
    '-q[say less]' \
    '-S[library of FIDO tokens]:library:_files' \
    '-s[add a PKCS\#11 token]:library:_files' \
    '-T[test that keys sign]' \
    '-t[lifetime]:time:' \
    '*-v[say more]' \
    '-X[unlock]' \
    '-x[lock]' \
    '--custody[how the key must be held]:custody:(kernel sealed)' \
    '--confirm-forwarded[ask before forwarded signatures]' \
    '--idle[remove the key when it is not used for so long]:time:' \
    '--help[show the usage]' \
    '*:key file:_files'
