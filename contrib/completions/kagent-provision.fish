complete -c kagent-provision -f
complete -c kagent-provision -n __fish_use_subcommand -a create -d 'give one key its payload; for request-key(8)'
complete -c kagent-provision -n '__fish_seen_subcommand_from create' -s h -l help -d 'show this help message and exit'
complete -c kagent-provision -n __fish_use_subcommand -a check -d 'does the configuration do what it should'
complete -c kagent-provision -n '__fish_seen_subcommand_from check' -s h -l help -d 'show this help message and exit'
complete -c kagent-provision -n '__fish_seen_subcommand_from check' -x -l user -d 'say which keys that user may have'
complete -c kagent-provision -n '__fish_seen_subcommand_from check' -x -l program -d 'by this program (default: the Python that this runs in)'
