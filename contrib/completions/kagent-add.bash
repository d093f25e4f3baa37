# bash completion for kagent-add
_kagent_add() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    case $previous in
    --custody) COMPREPLY=($(compgen -W "kernel sealed" -- "$current")) ;;
    -E) COMPREPLY=($(compgen -W "md5 sha1 sha256 sha384 sha512" -- "$current")) ;;
    -h | -t | --idle) ;;
    *)
        case $current in
        -*) COMPREPLY=($(compgen -W "-c -C -d -D -E -e -H -h -K -k -L -l -N -P -Q -q -S -s -T -t -v -X -x --custody --confirm-forwarded --help --idle" -- "$current")) ;;
        *) COMPREPLY=($(compgen -f -- "$current")) ;;
        esac
        ;;
    esac
}
complete -o filenames -F _kagent_add kagent-add
