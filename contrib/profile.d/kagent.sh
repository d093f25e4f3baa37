# To /etc/profile.d and /etc/X11/Xsession.d: logins by ssh, on the console and to X find the agent of
# kagent.socket too.  An agent that is forwarded, or that was chosen before, stays.
if [ -z "${SSH_AUTH_SOCK-}" ] && [ -S "${XDG_RUNTIME_DIR-}/kagent/agent.sock" ]; then
    SSH_AUTH_SOCK=$XDG_RUNTIME_DIR/kagent/agent.sock
    export SSH_AUTH_SOCK
fi
