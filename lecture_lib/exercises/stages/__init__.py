"""How answers are called where a plain call is not enough. These files go into the sandbox: they hold no answer."""
