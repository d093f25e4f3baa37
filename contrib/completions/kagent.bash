# bash completion for kagent
_kagent() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    case $previous in
    --custody) COMPREPLY=($(compgen -W "kernel sealed" -- "$current")) ;;
    --keyring) COMPREPLY=($(compgen -W "session user persistent private" -- "$current")) ;;
    --confirm-behind) COMPREPLY=($(compgen -W "always forwarded" -- "$current")) ;;
    -E) COMPREPLY=($(compgen -W "md5 sha1 sha256 sha384 sha512" -- "$current")) ;;
    -O) COMPREPLY=($(compgen -W "no-restrict-websafe websafe-allow= allow-remote-pkcs11" -- "$current")) ;;
    -a | -P | --behind) COMPREPLY=($(compgen -f -- "$current")) ;;
    -A | -t | --burst | --idle-exit) ;;
    *)
        case $current in
        -*) COMPREPLY=($(compgen -W "-A -a -c -D -d -E -k -O -P -s -T -t -U -u -V --behind --burst --confirm-behind --custody --help --idle-exit --keyring" -- "$current")) ;;
        *) COMPREPLY=($(compgen -c -- "$current")) ;;
        esac
        ;;
    esac
}
complete -F _kagent kagent
