function(uext4_install_rules)
endfunction()
