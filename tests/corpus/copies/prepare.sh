echo a > a.txt; echo b > b.txt; echo x > x.md; echo y > y.md
mkdir -p dir/sub/deep dir/empty secrets ignored
echo in > dir/sub/in; echo deep > dir/sub/deep/deep; chmod 600 dir/sub/in; chmod 755 dir/sub/deep/deep; chmod 1777 dir/empty
ln -s sub/in dir/inner; ln -s a.txt link; ln -s /etc/passwd dir/absolute; ln -s nowhere dir/broken
echo s > "with space"; echo n > ignored/n; echo l > dir/x.log; echo p > secrets/private; echo q > secrets/public
