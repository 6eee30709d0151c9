// The codebooks of ggml's IQ types: which groups of 8 (or 4) values a code stands for. They are facts of the format.
//
// Two characters a group, c0 + 90 c1, where a character counts from '#' over the printable ones without ? and \\; the
// number's digits, lowest first, say which value of the codebook's alphabet stands at each place.
#include "ponder/tensor/blocks_iq_grids.h"

namespace ponder::blocks {

const char* const kIq2XxsGrid =
    "##%#'#)#+#-#/#5#7#;#=#@#B#H#N#R#T#Z#]#c#o#w#y##$'$5$T$a$m$o$%%J%e%g%m%w%y%#&%&)&5&@&B&H&T&Z&]&a&m&{&3'5'@'X'Z'm'"
    "/(B(H(L(N(T(a(e(g(m(o())B)Z)7*B*-+/+5+@+H+Z+g+m+q+#,),5,H,P,Z,/-9-m-s-#.'.3.H.s.7/Z/i/R0T0Z0m0-1H1L152e25373=3T3"
    "e3m3o3F4N4#5%5w5y5#656D6m6-7B7H8a8m8B9g:@;B;H;N;R;T;Z;a;i;m;w;y;#<5<H<e<m<q<-=5=N=V=a=#>)>5>Z>k>%@/@m@eAgAmA#B'B"
    "ZB)C-C7CqC5DHDNDRDXDZD#E)EBE]E/FwFmGoG+HwHBImIwI}IBJ#KaKTLZLmL)MHMqMNNmN5O9O5P7PgP7RZT]TcTwT7UTUaUmURV@WBWHWLWZW"
    "mW5XVXyX3YHYZY%ZyZw[g]m]y]#^R^i^5_q_H`]`g`eaec5doe5fLfkfZgahZk/l";

const char* const kIq2XsGrid =
    "##%#'#)#+#-#/#1#3#5#7#9#;#@#B#D#F#H#J#L#N#R#T#Z#]#_#a#e#g#k#m#w#y#{#}##$%$'$)$+$-$/$5$7$9$;$@$B$H$N$R$T$Z$m$o$q$"
    "s$w$y$#%-%/%5%9%H%P%e%g%i%k%m%o%q%s%w%y%#&%&'&)&-&/&1&5&@&B&H&Z&]&_&a&e&g&m&w&y&#'-'5'R'T'Z'i'm'o'/(H(J(L(N(P(R("
    "T(Z(_(e(g(m(s(#)5)=)@)B)H)Z)w)})5*H*N*{*#+-+/+1+3+5+7+9+;+@+B+H+J+L+N+R+T+Z+c+e+g+m+#,%,',),-,/,5,@,B,H,Z,g,i,w,"
    "y,{,#-5-H-m-o-q-s-w-y-#.-./.3.5.B.H.e.g.m.#/Z/g/}/R0T0Z0]0m0y011H1L1{1e233537393;3=3@3B3H3R3T3Z3m3#4-4/454H4N4_4"
    "#575Z5s5w5y5#63656m6-777X7e7u7V8Z8a8c8m8'9;9J9):5:N:Z:%;);+;@;B;D;F;H;J;L;N;R;T;Z;];_;a;c;e;g;m;q;w;y;#<5<7<9<;<"
    "@<B<H<R<T<Z<m<q<%=-=/=5=7=F=H=#>%>'>)>->/>3>5>@>B>H>Z>g>w>y>#@/@5@c@m@u@/A5AeAgAmA#B'B/B7BZBeByB#C3CTCHDJDLDNDRD"
    "TDZDaDeDgDmD#E@EBEHELEZE]E5FTF+G-G/G5G@GHGZGeGwG#H)HZHaH-INIeImIyI-J5JXJuJ#K%K9LRLTLZLmLyL%M1MFMHMTNcN%O5ODO5PHP"
    "LPyPwQPR'SiS/T7TZT]T_TaTeTgTmTuTwTyT#U5U7UNUPURUTUVUZUmUwU}UHVZV#W%W5W;W@WBWHWJWLWZWmW}W5XTX'Y;YcY#Z)Z9ZPZZZ]ZsZ"
    "{Z%]H]N]V]a]e]g]m]#^1^B^Z^o^/_{_3`H`L`g`m`s`Xa#b%bRbRc{cFd'eHemeoeseue#f+fZf-g3gVgZg]gagug5hHhmh9iqj)k=kHkJkNk#l"
    ")l/lglil;m=memum";

const char* const kIq2SGrid =
    "##%#'#)#+#-#/#1#3#5#7#9#;#@#B#D#F#H#J#L#N#R#T#V#X#Z#]#_#a#e#g#m#q#u#w#y#{#}##$%$'$)$-$/$5$7$9$;$@$B$D$F$H$L$N$R$"
    "T$Z$]$_$e$g$m$o$q$s$w$y$#%+%-%/%1%3%5%9%H%L%P%T%]%e%g%i%k%m%o%q%s%w%y%{%}%#&%&'&)&+&-&/&1&3&5&7&9&@&B&D&F&H&L&N&"
    "R&T&Z&]&_&a&c&e&g&i&k&m&q&s&w&y&{&}&#'%''')'-'/'5'7'9';'@'B'H'R'T'V'X'Z'_'m'q's'w'y'#(-(/(5(H(J(L(N(R(T(V(X(Z(_("
    "c(e(g(i(k(m(o(q(s(w(y(#)')/)=)@)B)H)J)L)N)R)Z)_)a)e)g)m)w)#*5*@*B*J*N*P*Z*}*-+/+1+3+5+7+9+;+@+B+D+H+J+L+N+R+T+V+"
    "X+Z+]+_+a+e+g+i+m+q+s+w+y+#,%,',),+,-,/,1,3,5,7,9,;,@,B,D,F,H,J,L,N,R,T,Z,],_,a,e,g,w,y,},#-'---/-5-9-@-B-R-T-Z-"
    "m-o-q-s-w-y-{-}-#.'.).-./.1.3.5.7.9.;.@.B.H.J.L.N.R.T.Z.e.g.i.k.m.o.q.s.w.y.#/%/'/)/-///5/@/B/H/Z/_/a/e/g/m/w/y/"
    "#050P0R0T0V0X0Z0_0a0e0m0o0q0s0w0y0#1-1/1H1J1L1N1R1T1Z1e1g1m1}172B2H2Z2i2537393;3@3B3D3F3H3L3P3R3T3Z3]3_3g3m3u3y3"
    "+4-4/4547494@4H4J4L4R4T4Z4e4g4m4#5+575;5=5B5H5a5c5s5w5y5{5}5#6'6)6-6/6567696;6@6B6H6R6T6Z6m6q6s6w6y6#7-7/757D7H7"
    "e7g7m7#838Z8_8e8g8w8y8#9=9P9R9T9Z99:P:]:y:);+;@;B;D;F;H;J;L;N;P;R;T;V;Z;];_;a;c;e;g;i;k;m;o;q;w;y;#<'<)<-</<5<7<"
    "9<;<@<B<D<F<H<J<L<R<T<V<X<Z<]<_<a<e<g<m<o<q<s<w<y<#=-=/=5=7=9=;=B=H=L=N=R=T=Z=e=g=#>%>'>)>+>->/>1>3>5>7>9>;>@>B>"
    "D>F>H>J>L>N>R>T>Z>]>_>a>e>g>m>w>y>{>}>#@%@'@)@-@/@5@7@9@;@@@B@H@P@R@T@Z@m@o@q@s@w@y@#A-A/A5AHA_AeAgAkAmAoAqAsAwA"
    "yA#B%B'B)B-B/B5BBBHBZB]B_BaBeBgBmBwByB#C5CDCRCTCZCmCHDJDLDNDRDTDVDXDZD]D_DaDeDgDiDkDmDoDqDsDwDyD#E%E'E)E-E/E@EBE"
    "DEFEHEJELENERETEZE]E_EaEeEgEmEwEyE#F5F9F;F@FBFHFRFTFZFkFmF-G/G1G3G5G7G9G;G@GBGHGJGLGNGRGTGZGeGgGmG#H%H'H)H-H/H5H"
    "@HBHHHZHwHyH#I1I5ImIoIqIsIwIyI#J-J/J5J=JHJeJgJmJ#KZKkK9LNLRLTLVLZL]L_LaLeLgLmLqLsLwLyL#M/M5MHMJMLMNMRMTMZMeMgMmM"
    "#N3NBNHNZNiN-O5O9O;O@OBOHOROTOZOmO-P/P5PHPPPaPoP#QgQwQyQ#RLRaRmR+S%TRTZT]T_TaTeTgTkTmTqTwTyT#U%U'U)U-U5U9U@UBURU"
    "TUXUZU]U_UaUeUgUmUoUqUsUwUyU-V/V5VFVHVLVPVRVTVeVgVmV@WBWDWFWHWJWLWNWRWZW]W_WaWeWgWmWwWyW#X5X7X9X;X@XBXHXRXTXZXmX"
    "uX-Y/Y5YFYHY#Z'Z-Z/Z@ZBZHZoZwZyZ5[L[%];]=]J]]]e]g]k]m]o]q]s]y]#^%^'^)^-^/^5^@^B^H^Z^_^e^g^w^y^#_+_R_T_Z_m_D`H`J`"
    "L`N`R`T`Z`e`g`m`#a1a@aBaHaZa)b-b5bVbgb-c/c5cDcHc}c#dFdJdZemeqeueye%f+f-f/f5f]fcf#g9g]gcgogsgug7h;h=hNhRhThZhmh3i"
    "BiHiXiej=kNk%lTlil)m+m5m7m;mamum";

const char* const kIq3XxsGrid =
    "##%#'#,#.#2#3#5#<#F#`#b#f#h#m#o#v#z#}##$*$5$B$J$L$N$S$Z$]$d$f$j$t$z$,%0%6%7%9%E%i%|%4&9&E&Q&S&W&^&q&%'Y'q')(-(/("
    "E(S(d(f(k(m(t(v({(}(#).)/)H)J)Q)X)Z).*0*5*7*>*F*i*o*q*#+,+9+J+U+Y+}+J,N,a,t,$-s-%.F.H.O.Q.V.X.].`.i.,/./0/3/5/</"
    "D/`/d/e/m/o/v/|/}/#00010>0S0Z0_0/131U1d1|142>2Z2E3G3R3j3*41434:4<4R4`4e4k4m4{4(53555Q5S5X5f5{5/6>6Q637C7V7]7c7o7"
    ".8N8a8v8C9X9m9x9*:,:8:<:/;D;S;T;e;k;|;><_<(=3=U=d=y=l>o>q>#@V@n@)A1A7AHA`A#B1BRBZB(CFCQCUCyC%D<D1E_EmEDFTFVFeF&G"
    "GGfG/HTHZHFIhI1JdJ0K>KrKtKvKwK-L=LkLuLDM`MeM{M,N:NPNrN&OFOHOZODP";

const char* const kIq3SGrid =
    "##$#%#(#*#+#,#-#/#1#3#4#8#>#D#F#I#K#M#O#T#V#^#a#d#e#f#g#i#m#n#r#u#x#|#~#&$-$:$>$D$J$K$O$Q$R$U$X$[$`$c$g$m$p$r$t$"
    "v$'%*%2%8%<%@%B%I%K%N%T%X%Z%h%j%n%q%|%$&&&)&/&5&8&>&N&X&Z&g&i&m&r&x&|&~&1'6'B'E'G'U'g'v'}'#(%(1(3(7(<(J(N(c(d(e("
    "g(k(l(n(p(r(s(u(|(#)%)3)5)8)B)H)I)K)N)P)T)Y)a)d)j)q)s)%*+*-*7*:*<*=*B*H*N*Q*[*_*i*p*s*v*w*z*$+*+++/+4+F+L+W+Y+_+"
    "a+n+p+w+{+}+%,:,B,E,K,R,T,d,/-3-6-D-F-b-d-i-k-r-~-&.7.=.F.G.I.K.M.N.P.R.T.W.Y.^._.a.h.j.l.o.q.~.#/&/(/+/-/3/6/:/"
    "=/A/E/H/N/U/n/q/t/~/$0)00020<0A0K0N0R0T0W0[0e0g0l0n0u0{0-181>1H1K1R1U1Y1s1v1}1&2/2<2=2I2V2_2a2f2p20343I3M3Z3]3h3"
    "m3+424446484;4C4E4G4L4N4Q4S4^4d4l4n4p4w4|4~4/5@5J5N5P5Z5a5k5m5y566=6B6G6I6M6N6W6Y6^6d6r6z6$7)7-747F7L7P7^7e7g7r7"
    "w7%8/8<8P8d8(9*97999E9i9m9s9y9}9$:':.:5:F:P:U:W:Y:a:g:l:r:x:|:4;6;;;A;E;O;T;d;g;m;y;~;$<)<+<2<6<Z<]<o<z<{<8=E=G="
    "Q=s=0>B>V>o>t>#@.@4@N@T@X@_@m@q@t@w@'A-A2A4A6A;ACALAmAsA|A*B/B5BCBZB`BaBpB}B&C2C8C>CBCNCXCeC-D9DMDOD+ELENE]E8F:F"
    "<FIFKFaFqF%G,GJGaGsGyG(H-H3H;HHHMH]H6IEITIcIfI#J7JMJiJ6K8KoKsKvK#L%L1L3L@LFLVL^LiLxLzL:M=MBMHMKMRMdM}M9N<NKNbNfN"
    "lNqN-OXOiO-PEPmP";

const char* const kIq1Grid =
    "##%#'#)#+#-#0#5#7#;#=#C#I#K#M#U#Z#]#a#c#h#m#o#s#u#y#z#$$&$($*$+$0$6$:$<$A$C$G$I$K$M$N$U$[$^$`$h$m$o$s$u$z$#%%%)%"
    "+%0%6%<%B%F%H%J%N%P%R%U%X%Z%]%a%c%n%p%r%z%$&*&0&4&8&9&I&O&U&[&^&_&`&h&j&l&t&v&z&~&#'$'&'''('*','.'0'2'4'6'@'C'E'"
    "G'I'K'L'M'O'^'b'n'p'v'x'z'|'#($(((*(0(6(8(<(H(J(N(P(U(Z(](a(c(h(n(r(z(#)%)))+)0)5)7);)=)C)I)K)O)T)U)[)d)e)h)n)p)"
    "t)$*&*(***0*5*7*;*=*C*H*J*N*P*U*[*b*e*h*m*o*q*s*u*z*#+%+)+++5+6+8+<+B+C+I+K+Q+U+W+[+^+_+b+n+p+r+w+z+$,&,(,*,,,.,"
    "0,2,6,8,<,C,G,H,I,J,K,L,M,O,Q,U,^,f,h,n,p,$-&-(-0-5-:-<-A-C-E-G-K-M-U-[-^-`-h-n-r-t-y-z-|-}-$.(.-.0.1.2.4.6.8.9."
    ":.<.A.C.E.K.O.Q.T.U.W.X.Y.[.^._.b.f.h.l.n.p.q.r.t.v.x.z.|.~.$/&/'/(/-/.///0/1/3/4/6/8/9/:/</>/A/B/C/E/G/H/I/K/L/"
    "M/O/P/Q/S/U/[/^/_/`/h/i/j/l/n/r/v/x/y/z/|/~/$0'0(0)0*0-0/000203040:0=0A0C0K0O0[0`0h0n0p0r0t0v0z0|0~0#1$1&1(1*101"
    "6181C1Q1S1U1Y1[1_1f1g1h1j1n1p1q1r1t1u1v1z1~1*2-2.2022262:2<2F2M2T2V2^2`2b2d2f2h2j2n2r2t2z2$3(3+35373;3=3C3H3J3L3"
    "N3P3U3[3b3e3h3m3o3s3u3z3#4%4'4)4+4046484<4C4J4K4O4U4W4Y4[4^4_4`4h4m4r4t4z4$5)5+5-5055575;5=5C5I5M5O5U5[5a5c5e5h5"
    "m5o5s5u5z5&6(6*6068696:6<6A6C6E6G6M6U6[6^6b6e6h6t6z6$7*7,70727678797<7A7C7E7O7Q7T7U7W7Y7[7^7`7b7h7m7o7t7z7$8*808"
    "5868<8B8D8H8P8Z8]8a8c8h8m8o8s8u8z8$9&9095979;9=9H9J9N9P9X9[9^9b9h9r9t9x9z9$:&:(:*:0:5:::<:B:C:H:J:N:P:Z:]:a:c:h:"
    "n:r:t:z:#;%;);+;0;5;7;;;=;C;I;M;U;b;f;h;j;l;n;p;r;&<*<-<1<5<6<8<:<<<A<C<D<E<G<I<M<O<U<W<Y<[<^<_<`<b<c<h<j<l<n<p<"
    "r<v<x<z<#=$=%=0=6=8=:=C=I=S=U=Y=^=b=k=p=z=$>0>3><>C>E>G>I>K>L>M>R>S>U>W>Y>[>`>b>d>f>h>m>n>t>w>x>z>~>$@&@'@(@*@,@"
    "0@4@6@8@9@:@<@>@@@B@C@D@E@F@I@K@L@M@O@S@T@U@W@[@^@_@`@b@c@h@j@l@n@q@t@y@z@|@~@$A&A*A,A.A0A2A5A6A7A9A:A<AAACAEAIA"
    "LAPATAUA[A^A`AhAnAqAuAzA%B*B,B0B2B6B8B:B<BCBIBKBMBOBUB[B_B`BcBdBgBhBjBnBpBrBvBzB~B$C%C&C'C(C*C,C.C0C1C4C:C<CACCC"
    "DCECICKCMCOC`CpCrCtCzC|C~C&D*D8DCDIDKDLDMDODSDUDYD[D^DbDdDhDjDnDpDqDrDtDzD|D(E*E0E2E5E6E:E<ECEEEFEGEIEKELEMENEOE"
    "QEUEVEWEYE[E^E_E`EbEdEeEfEgEhEiEjEkElEnEpEqErEtExEzE$F&F'F(F*F,F0F4F6F:FAFCFGFIFKFSFUFYF[F^F_F`FbFfFhFqFvFxFzF}F"
    "~F&G/G0G6G8G9G:G;G<G@GCGEGGGIGKGLGMGOGPGQGRGTGUGVGWGXGYG[G]G^G_G`GbGdGjGlGnGpGqGrGtGwGyGzG~G$H%H&H'H(H*H,H-H.H/H"
    "0H1H3H4H6H8H9H:H<H>H@HAHBHCHDHEHFHHHIHJHKHLHMHNHOHPHQHRHTHUHVHWHXHYH[H^H_HbHcHdHeHgHhHiHjHkHnHpHqHrHtHvHwHxHyH{H"
    "|H}H$I&I'I)I*I,I-I.I/I0I1I2I3I6I9I:I;I<I=I>I@IAIBICIDIEIFIGIIIKILIOISIUIVIWIXIYI[I_IcIfIhIiIjIkIpIqIrItIvIzI|I$J"
    "+J0J2J4J6J8J9J:J;J<J>JAJBJCJJJOJQJSJUJWJ[JbJeJfJhJlJnJpJqJrJtJzJ$K&K'K(K*K,K-K.K/K0K1K2K3K4K6K8K9K:K<K@KCKFKIKKK"
    "LKMKNKOKUK^KaKhKlKmKqKrKtKzK|K}K$L'L(L)L*L.L0L2L4L6L=LALCLDLELGLILUL^L`LbLhLpLvLzL{L|L~L$M&M(M*M-M:MCMIMKMMMOMSM"
    "UM[M]M`MbMhMkMnMqMrMtMzM{M~M&N+N.N0N6N:N<NINMNONZN[N`NhNiNjNmNzN$O(O0O@OAOCODOGOIOMOOOQOSOUOWOYO[O^O_O`ObOcOdOfO"
    "hOpOqOtOvOxOyOzO{O|O~O$P&P*P0P2P4P6P9P:P<PKPLPMPOPQPRPTPUPVPXP[P^P_P`PbPiPkPlPnPqPrPtPuPxPzP{P|P%Q*Q0Q5Q:Q;Q<Q>Q"
    "CQEQGQIQKQLQMQNQPQQQUQWQZQ]Q_QcQgQiQjQkQmQpQrQuQ(R*R0R6RARCRGRIRORUR[RaRiRnRpRvRzR$S&S(S*S,S-S0S1S2S6S8S9S:S<S>S"
    "CSGSJSKSPSUS[S^S_SbSnSrSsS$T&T*T,T0T2T4T8T9T<TDTKTNTPTVTZT]TaTcTmToTsTuTzT#U$U&U(U*U0U5U7U;U=UCUHUJUNUPUUU[U^U`U"
    "bUhUnUpUtUvUxUzU{U|U}U&V(V*V0V3V8V:V<VCVHVJVNVPVUVZV]VaVcVnVpVtVzV#W%W)W+W0W5W7W;W=WKWOW[W^WeWhWlWnWpWtW&X*X6X<X"
    "AXCXGXMXOXQXRXUXWX[X^X_X`XbXcXhXiXjXlXnXpXrXtXvXxXzX|X(Y6Y:Y<YCYIYKYOYPYQYUYXYYY[Y`YcYhYnYuYyY#Z%Z)Z+Z0Z5Z7Z;Z=Z"
    "@ZCZIZKZOZUZXZZZ]ZaZcZhZmZoZsZuZzZ{Z$[&[([0[6[8[:[<[>[A[C[G[I[K[U[`[b[h[m[o[s[u[z[#]%])]+]0]6]8]:]H]J]N]P]U]Z]]]"
    "a]c]h]n]r]s]t]z]$^(^*^0^2^4^<^=^C^I^K^M^O^U^[^^^`^b^d^h^j^l^n^p^r^t^v^z^#_$_&_'_(_*_._0_8_:_A_C_E_I_K_M_O_U_[_^_"
    "b_h_p_r_t_v_x_z_|_(`*`0`8`:`F`I`K`M`Q`U`W```d`l`n`p`q`r`s`t`v`w`x`z`&a(a.a/a0a2a6a<a>aCaEaGaHaIaKaLaMaOaRaUaXaYa"
    "[a^a_a`abadaeafagahaiajakalanapaqaratawaza|a$b%b&b'b(b*b+b,b.b0b2b4b6b8b>bCbFbHbMbObUbWbXb[b]b_b`bbbhbjbobpbtbub"
    "xbybzb&c(c*c0c:c<cCcIcMcQcScUcVcYc^c_chcncrctczc&d(d*d,d.d0d2d4d5d6d8d:d>dAdCdEdGdIdKdLdMdOdSdUdVdYd[d^dddfdhdld"
    "ndrdzd'e0e8e:e<e>eCeEeIeUe[e^e_e`emeoeseueze#f%f)f+f0f6f8f:f<fHfJfNfPfUfZf]fafcfhfkfnfpfrftfuf(g*g-g0g2g4g6g8gCg"
    "HgJgMgOg]gagcgdgkgogsgugzg$h(h*h0h5h7h;h=hChHhJhNhPhbhhhnhphvhyhzh|h~h$i'i(i)i*i0iMiOiQiSiUiWi`ibifihinipiqiriti"
    "zi~i$j&j'j(j*j.j0j2jCjIjMjPjRjUj^j`jcjfjhjijjjmjoj{j#k'k(k*k-k/k1k5k7k;k=kHkJkNkPk[k^k`kbkmkokskukzk#l%l)l+l0l8l"
    "<l@lClIlQlUlYl[l`lblmlrl#m%m)m+m5m7m;m=mImKmMmZm]mamcmhmmmomsmum";

}  // namespace ponder::blocks
